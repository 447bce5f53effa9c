export type { DrainCounts } from './drain.js';
export type * from './messages.js';
export { TunnelWorker, type TunnelWorkerDeps } from './tunnel-worker.js';
