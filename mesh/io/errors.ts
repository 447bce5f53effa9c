import { errnoName, FailureStage, type NativeFailure } from '../../native/index.js';
import { formatSocketAddress, type SocketAddress } from '../common/address.js';
import { MeshError } from '../common/errors.js';
import type { IoErrorCode } from './types.js';

/** What ended a connection. `data.errno` names the system's error where there was one, `data.remote` the peer. */
export class IoError extends MeshError<IoErrorCode> {}

/** The error of a connection that the engine failed. */
export function failureError(failure: NativeFailure, remote: SocketAddress): IoError {
  const errno = failure.errno === 0 ? undefined : errnoName(failure.errno);
  const peer = formatSocketAddress(remote);
  const code = codeOf(failure.stage);
  return new IoError(code, `${WHAT[code]} ${peer}: ${failure.text}`, { remote: peer, errno });
}

/** A deadline or limit of our own, or a call that failed at once. */
export function limitError(
  code: IoErrorCode,
  remote: SocketAddress,
  detail: string,
  errno?: string,
): IoError {
  const peer = formatSocketAddress(remote);
  return new IoError(code, `${WHAT[code]} ${peer}: ${detail}`, { remote: peer, errno });
}

/** A dial that failed at once. */
export function connectError(errno: number, remote: SocketAddress): IoError {
  const name = errnoName(errno);
  const isOurs = name === 'EMFILE' || name === 'ENFILE' || name === 'ENOMEM' || name === 'ENOBUFS';
  return limitError(isOurs ? 'NO_RESOURCES' : 'CONNECT_FAILED', remote, name, name);
}

const WHAT: Readonly<Record<IoErrorCode, string>> = {
  CONNECT_FAILED: 'cannot connect to',
  CONNECT_TIMEOUT: 'cannot connect to',
  HANDSHAKE_FAILED: 'TLS handshake failed with',
  HANDSHAKE_TIMEOUT: 'TLS handshake failed with',
  RESET: 'connection lost with',
  WRITE_OVERFLOW: 'connection given up with',
  HANDLER_FAILED: 'exception of ours; reset connection with',
  NO_RESOURCES: 'no resources for a connection with',
};

function codeOf(stage: number): IoErrorCode {
  switch (stage) {
    case FailureStage.CONNECT:
      return 'CONNECT_FAILED';
    case FailureStage.HANDSHAKE:
      return 'HANDSHAKE_FAILED';
    case FailureStage.RESOURCES:
      return 'NO_RESOURCES';
    default:
      return 'RESET';
  }
}
