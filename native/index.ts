export { NativeError, type NativeErrorCode } from './errors.js';
export { libraryPath, type NativeLibrary, openLibrary } from './library.js';
export { packageRoot } from './package-root.js';
