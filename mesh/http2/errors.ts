import { MeshError } from '../common/errors.js';
import type { ErrorCode } from './types.js';

/** What the owner of a session did wrong, and what the peer did wrong (`CONNECTION_ERROR`, which never leaves this room). */
export type Http2ErrorCode =
  | 'SESSION_CLOSED' // request() on a session that takes no streams any more
  | 'TOO_MANY_STREAMS' // request() beyond the peer's SETTINGS_MAX_CONCURRENT_STREAMS
  | 'INVALID_HEADERS' // a header list that RFC 9113 section 8 forbids to send
  | 'INVALID_OPTION'
  | 'CONNECTION_ERROR';

export class Http2Error extends MeshError<Http2ErrorCode> {}

/** A connection error (RFC 9113 section 5.4.1): thrown inside the room only, `receive` turns it into a GOAWAY. */
export class ConnectionError extends Http2Error {
  readonly errorCode: ErrorCode;

  constructor(errorCode: ErrorCode, reason: string) {
    super('CONNECTION_ERROR', reason, { errorCode });
    this.errorCode = errorCode;
  }
}
