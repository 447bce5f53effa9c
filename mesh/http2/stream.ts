import { Http2Error } from './errors.js';
import type { FloodGuard } from './flood-guard.js';
import type { ReceiveFlow, StreamWindow } from './flow-control.js';
import type { HeaderCheck } from './headers.js';
import type { Sender, SendFlow } from './send-flow.js';
import type { ErrorCode, HeaderList, Session, Slab, Stream, StreamHandler } from './types.js';
import type { FrameEncoder } from './wire/encoder.js';

/** What a stream needs of its session. */
export interface StreamOwner extends Session {
  readonly encoder: FrameEncoder;
  readonly sendFlow: SendFlow;
  readonly receiveFlow: ReceiveFlow;
  readonly guard: FloodGuard;
  readonly headerCheck: HeaderCheck;
  nowMs(): number;
  /** The stream is closed: takes it off the books. `isReset`: by us, so late frames of the peer's are excused. */
  forget(stream: Http2Stream, isReset: boolean): void;
  /** To be called when a stream has been forgotten and its handler has heard of it. */
  checkDrained(): void;
}

/** Until the owner has set one: a server's stream during `onRequest`. */
const NO_HANDLER: StreamHandler = {
  onHeaders() {},
  onData() {},
  onEnd() {},
  onReset() {},
  onWritable() {},
};

/** A DATA frame at least this large earns window updates whatever the window left over (see `windowUpdatesPerDataFrame`). */
const ORDINARY_DATA_BYTES = 1024;

/** One stream (RFC 9113 section 5.1): open, half-closed by `localEnded` or `remoteEnded`, closed by both or by a reset. */
export class Http2Stream implements Stream, Sender {
  readonly id: number;
  readonly session: StreamOwner;
  readonly window: StreamWindow;
  handler: StreamHandler = NO_HANDLER;
  sendWindowBytes: number;
  isWaiting = false;
  isQueued = false;
  localEnded = false;
  remoteEnded = false;
  isClosed = false;
  /** The final (not 1xx) headers of our own direction went out; of the peer's, came in. */
  headersSent = false;
  headersReceived = false;
  /** CONNECT: DATA is a tunnel's bytes; no trailers, no content-length. */
  isConnect = false;
  isHead = false;
  informationalResponses = 0;
  /** Content-length that the peer announced, or -1; and payload bytes so far. */
  expectedBytes = -1;
  receivedBytes = 0;

  constructor(id: number, session: StreamOwner, sendWindowBytes: number) {
    this.id = id;
    this.session = session;
    this.sendWindowBytes = sendWindowBytes;
    this.window = session.receiveFlow.openStream(session.nowMs());
  }

  get isOpen(): boolean {
    return !this.isClosed && !this.localEnded && !this.remoteEnded;
  }

  get canSend(): boolean {
    return !this.isClosed && !this.localEnded;
  }

  sendHeaders(headers: HeaderList, endStream: boolean): void {
    if (!this.canSend) return;
    const problem = this.checkHeaders(headers, endStream);
    if (problem !== null) {
      throw new Http2Error('INVALID_HEADERS', `cannot send headers on stream ${this.id}: ${problem}`, {
        headers,
      });
    }
    this.session.encoder.headers(this.id, headers, endStream);
    if (endStream) this.endLocal();
  }

  sendCapacity(): number {
    return this.canSend && this.headersSent ? this.session.sendFlow.capacity(this) : 0;
  }

  beginData(max: number): Slab {
    const limit = this.canSend && this.headersSent ? this.session.sendFlow.limit(this) : 0;
    if (max > limit) throw new RangeError(`stream ${this.id} may send ${limit} bytes, not ${max}`);
    return this.session.encoder.beginData(max);
  }

  commitData(bytes: number, endStream: boolean): void {
    if (bytes === 0 && !endStream) {
      this.session.encoder.dropData();
      return;
    }
    this.session.encoder.commitData(this.id, bytes, endStream);
    this.session.sendFlow.spend(this, bytes);
    if (bytes >= ORDINARY_DATA_BYTES || this.sendWindowBytes > 0) this.session.guard.earnWindowUpdates();
    if (endStream) this.endLocal();
  }

  sendData(bytes: Buffer, start: number, end: number, endStream: boolean): number {
    if (start === end) {
      if (endStream) this.endStream();
      return 0;
    }
    const length = Math.min(end - start, this.sendCapacity());
    if (length === 0) return 0;
    const slab = this.beginData(length);
    bytes.copy(slab.bytes, slab.end, start, start + length);
    this.commitData(length, endStream && start + length === end);
    return length;
  }

  endStream(): void {
    if (!this.canSend || !this.headersSent) return;
    this.session.encoder.endStream(this.id);
    this.endLocal();
  }

  reset(code: ErrorCode): void {
    if (this.isClosed) return;
    this.resetQuietly(code);
    this.session.checkDrained();
  }

  consumed(bytes: number): void {
    if (this.isClosed || this.remoteEnded) return;
    this.returnCredit(bytes);
  }

  /** Bytes that never reach the reader (padding) or that it is done with. */
  returnCredit(bytes: number): void {
    const flow = this.session.receiveFlow;
    if (!flow.consumed(this.window, bytes)) return;
    const increment = flow.grant(this.window, this.session.nowMs());
    if (increment > 0) this.session.encoder.windowUpdate(this.id, increment);
  }

  writable(): void {
    this.handler.onWritable(this);
  }

  /** END_STREAM came. */
  endRemote(): void {
    this.remoteEnded = true;
    this.handler.onEnd(this);
    if (this.localEnded) this.close();
  }

  /** RST_STREAM came, or the stream is lost otherwise: nothing is sent. */
  lose(code: ErrorCode, sessionLost: boolean): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.session.forget(this, false);
    this.handler.onReset(this, code, sessionLost);
    this.session.checkDrained();
  }

  /** A stream error found here (section 5.4.2). */
  fail(code: ErrorCode): void {
    if (this.isClosed) return;
    this.resetQuietly(code);
    this.handler.onReset(this, code, false);
    this.session.checkDrained();
  }

  private resetQuietly(code: ErrorCode): void {
    this.isClosed = true;
    this.session.encoder.rstStream(this.id, code);
    this.session.forget(this, true);
  }

  private endLocal(): void {
    this.localEnded = true;
    if (this.remoteEnded) this.close();
  }

  private close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.session.forget(this, false);
    this.session.checkDrained();
  }

  /** A client's first headers go through `Session.request`; what comes here is a response, or trailers. */
  private checkHeaders(headers: HeaderList, endStream: boolean): string | null {
    const check = this.session.headerCheck;
    if (this.headersSent) {
      if (this.isConnect) return 'a CONNECT stream has no trailers';
      return endStream ? check.trailers(headers) : 'trailers end the stream';
    }
    const problem = check.response(headers);
    if (problem !== null) return problem;
    if (check.status < 200) return endStream ? 'a 1xx response does not end the stream' : null;
    this.headersSent = true;
    return null;
  }
}
