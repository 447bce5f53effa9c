export {
  ACCEPTED_BYTES,
  ADDRESS_BYTES,
  errnoName,
  FailureStage,
  NativeEngine,
  NativeEngines,
  NativeEvent,
  type NativeFailure,
  WAKE_HANDLE,
} from './engine.js';
export { NativeError, type NativeErrorCode } from './errors.js';
export { libraryPath, type NativeLibrary, openLibrary } from './library.js';
export { packageRoot } from './package-root.js';
export { NativeTlsContexts } from './tls-contexts.js';
