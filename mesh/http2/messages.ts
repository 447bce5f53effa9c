import { ConnectionError } from './errors.js';
import type { HpackDecoder } from './hpack/decoder.js';
import type { Http2Session } from './session.js';
import type { SessionLimits } from './session-limits.js';
import { Http2Stream } from './stream.js';
import { ErrorCode, type HeaderList } from './types.js';

/** Sent for a request whose header list is larger than we announced. */
const TOO_LARGE_RESPONSE: HeaderList = [[':status', '431']];

/** What complete field blocks and END_STREAM mean: requests, responses, trailers, and their rules (RFC 9113 section 8). */
export class Messages {
  private readonly session: Http2Session;
  private readonly limits: SessionLimits;
  private readonly hpack: HpackDecoder;

  constructor(session: Http2Session, limits: SessionLimits, hpack: HpackDecoder) {
    this.session = session;
    this.limits = limits;
    this.hpack = hpack;
  }

  /** One field block, whole. It is always decoded, whatever becomes of it: the compression state is the connection's. */
  fieldBlock(streamId: number, endsStream: boolean, bytes: Buffer, start: number, end: number): void {
    const headers = this.hpack.decode(bytes, start, end);
    const stream = this.session.streams.get(streamId);
    if (stream === undefined) {
      if (this.session.role === 'server' && this.session.isIdle(streamId))
        this.request(streamId, headers, endsStream);
      else this.session.lateHeaders(streamId);
    } else if (stream.remoteEnded) {
      this.session.streamError(stream, ErrorCode.STREAM_CLOSED);
    } else if (headers === null) {
      this.session.streamError(stream, ErrorCode.ENHANCE_YOUR_CALM);
    } else if (stream.headersReceived) {
      this.trailers(stream, headers, endsStream);
    } else {
      this.response(stream, headers, endsStream);
    }
  }

  /** END_STREAM after the last byte. */
  endOfStream(stream: Http2Stream): void {
    if (stream.expectedBytes >= 0 && stream.receivedBytes !== stream.expectedBytes) {
      this.session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
      return;
    }
    stream.endRemote();
  }

  private request(streamId: number, headers: HeaderList | null, endsStream: boolean): void {
    const session = this.session;
    if (!session.admitPeerStream(streamId)) return;
    if (session.openStreams >= session.maxConcurrentStreams) {
      this.refuse(new Http2Stream(streamId, session, 0));
      return;
    }
    const stream = session.openPeerStream(streamId);
    stream.headersReceived = true;
    if (headers === null) {
      this.rejectTooLarge(stream);
      return;
    }
    const check = session.headerCheck;
    if (check.request(headers, session.allowsExtendedConnect) !== null) {
      session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
      return;
    }
    stream.isConnect = check.isConnect;
    stream.isHead = check.method === 'HEAD';
    stream.expectedBytes = stream.isConnect ? -1 : check.contentLength;
    if (endsStream && stream.expectedBytes > 0) {
      session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
      return;
    }
    this.handOn(stream, headers, endsStream);
  }

  private handOn(stream: Http2Stream, headers: HeaderList, endsStream: boolean): void {
    const handler = this.session.handler.onRequest(stream, headers, endsStream);
    if (handler === null) {
      if (!stream.isClosed) this.refuse(stream);
      return;
    }
    stream.handler = handler;
    if (endsStream && !stream.isClosed) stream.endRemote();
  }

  private refuse(stream: Http2Stream): void {
    stream.reset(ErrorCode.REFUSED_STREAM);
    this.session.guard.refusedStreams.spend(this.session.nowMs());
  }

  /** The owner has not heard of the stream, so it needs no telling. A provoked reset like others, after a 431. */
  private rejectTooLarge(stream: Http2Stream): void {
    this.session.guard.streamErrors.spend(this.session.nowMs());
    stream.sendHeaders(TOO_LARGE_RESPONSE, true);
    stream.reset(ErrorCode.NO_ERROR);
  }

  private response(stream: Http2Stream, headers: HeaderList, endsStream: boolean): void {
    const session = this.session;
    const check = session.headerCheck;
    if (check.response(headers) !== null || (check.status < 200 && endsStream)) {
      session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
      return;
    }
    if (check.status < 200) {
      if (++stream.informationalResponses > this.limits.maxInformationalResponsesPerStream) {
        throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, 'too many 1xx responses');
      }
    } else {
      stream.headersReceived = true;
      const isTunnel = stream.isConnect && check.status < 300;
      stream.isConnect = isTunnel;
      const hasNoContent = stream.isHead || check.status === 204 || check.status === 304;
      // HEAD, 204 and 304: the length speaks of another message, and there is no content (RFC 9110 section 6.4.1)
      stream.expectedBytes = isTunnel ? -1 : hasNoContent ? 0 : check.contentLength;
      if (endsStream && stream.expectedBytes > 0) {
        session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
        return;
      }
    }
    stream.handler.onHeaders(stream, headers, endsStream);
    if (endsStream && !stream.isClosed) stream.endRemote();
  }

  private trailers(stream: Http2Stream, headers: HeaderList, endsStream: boolean): void {
    // section 8.5: a connected stream carries DATA only
    if (!endsStream || stream.isConnect || this.session.headerCheck.trailers(headers) !== null) {
      this.session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
      return;
    }
    if (stream.expectedBytes >= 0 && stream.receivedBytes !== stream.expectedBytes) {
      this.session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
      return;
    }
    stream.handler.onHeaders(stream, headers, true);
    if (!stream.isClosed) stream.endRemote();
  }
}
