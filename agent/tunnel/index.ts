export type * from './messages.js';
export { TunnelWorker, type TunnelWorkerDeps } from './tunnel-worker.js';
