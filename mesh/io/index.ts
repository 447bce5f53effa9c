export { IoError } from './errors.js';
export {
  EpollReactor,
  type IoLog,
  type ReactorCounters,
  type ReactorDeps,
  type ReactorOptions,
} from './reactor.js';
export { MAX_RESERVE_BYTES } from './slab-pool.js';
export { createTlsContext, releaseTlsContext } from './tls-context.js';
export * from './types.js';
