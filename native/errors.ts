import { MeshError } from '../mesh/common/errors.js';

export type NativeErrorCode =
  | 'LIBRARY_MISSING' // build/culvert-native.so was not built
  | 'LIBRARY_UNUSABLE' // it does not load: libbpf absent, other architecture, other version
  | 'OPENSSL_SYMBOLS_MISSING' // this Node does not export its OpenSSL
  | 'CALL_FAILED' // a call gave -errno; data has `operation` and `errno`
  | 'TLS_MATERIAL' // certificate, key or bundle that OpenSSL does not take
  | 'OUT_OF_BOUNDS' // a buffer, offset and length that do not fit: a bug on our side
  | 'BPF'; // an object that does not load or attach; data has the verifier's log

/** Raised by everything in native/. */
export class NativeError extends MeshError<NativeErrorCode> {}
