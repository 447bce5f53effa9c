export type { ReactorCounters } from './counters.js';
export { IoError } from './errors.js';
export { NamespaceSockets } from './namespace-sockets.js';
export {
  EpollReactor,
  type ReactorDeps,
  type ReactorOptions,
} from './reactor.js';
export { runWorker, type WorkerContext, type WorkerProgram } from './run-worker.js';
export { MAX_RESERVE_BYTES } from './slab-pool.js';
export { EngineTlsContexts } from './tls-context.js';
export * from './types.js';
export { WorkerPool, type WorkerPoolDeps, type WorkerPoolOptions } from './worker-pool.js';
