export type { DrainCounts } from './connections/drain.js';
export type * from './messages.js';
export { TunnelWorker, type TunnelWorkerDeps } from './tunnel-worker.js';
