import { ConnectionError } from './errors.js';
import type { Http2Session } from './session.js';
import type { SessionLimits } from './session-limits.js';
import type { Http2Stream } from './stream.js';
import { ErrorCode } from './types.js';
import type { FrameSink } from './wire/decoder.js';
import { Flag, FrameType, readUint31, readUint32 } from './wire/frame.js';

const NO_BYTES = Buffer.alloc(0);
const LAST_ERROR_CODE = ErrorCode.HTTP_1_1_REQUIRED;

/** Error codes we do not know count as INTERNAL_ERROR (RFC 9113 section 7). */
function errorCode(value: number): ErrorCode {
  return value <= LAST_ERROR_CODE ? (value as ErrorCode) : ErrorCode.INTERNAL_ERROR;
}

function protocolError(reason: string): never {
  throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, reason);
}

function checkLength(length: number, expected: number, frame: string): void {
  if (length !== expected)
    throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, `${frame} of ${length} bytes`);
}

/** What each frame of the peer's does to the session (RFC 9113 section 6). Connection errors are thrown, stream errors reset the stream. */
export class Inbound implements FrameSink {
  private readonly session: Http2Session;
  private readonly limits: SessionLimits;
  /** Stream and END_STREAM flag of the field block under way; 0: none. */
  private blockStreamId = 0;
  private blockEndsStream = false;
  private block: Buffer = NO_BYTES;
  private continuations = 0;
  /** Stream of the DATA frame under way; null: its bytes are dropped. */
  private dataStream: Http2Stream | null = null;
  private dataEndsStream = false;

  constructor(session: Http2Session, limits: SessionLimits) {
    this.session = session;
    this.limits = limits;
  }

  onDataStart(streamId: number, flags: number, length: number): void {
    this.expectFrame(FrameType.DATA);
    const session = this.session;
    if (streamId === 0) protocolError('DATA on stream 0');
    if (!session.receiveFlow.takeConnectionCredit(length)) {
      throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'DATA beyond the connection window');
    }
    const increment = session.receiveFlow.returnConnectionCredit();
    if (increment > 0) session.encoder.windowUpdate(0, increment);
    this.dataEndsStream = (flags & Flag.END_STREAM) !== 0;
    if (length === 0 && !this.dataEndsStream) session.guard.emptyDataFrames.spend(session.nowMs());
    const stream = session.streams.get(streamId);
    this.dataStream = stream === undefined ? null : this.admitData(stream, length);
    if (stream === undefined) session.lateData(streamId, length);
  }

  onDataPadding(bytes: number): void {
    const stream = this.dataStream;
    if (stream !== null && !stream.isClosed && !this.dataEndsStream) stream.returnCredit(bytes);
  }

  onDataBytes(bytes: Buffer, start: number, end: number): void {
    const stream = this.dataStream;
    if (stream === null || stream.isClosed) return;
    const length = end - start;
    stream.receivedBytes += length;
    if (stream.expectedBytes >= 0 && stream.receivedBytes > stream.expectedBytes) {
      this.session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
      return;
    }
    stream.window.unconsumedBytes += length;
    stream.handler.onData(stream, bytes, start, end);
  }

  onDataEnd(): void {
    const stream = this.dataStream;
    this.dataStream = null;
    if (stream !== null && this.dataEndsStream && !stream.isClosed) this.session.messages.endOfStream(stream);
    this.session.checkBlockedBytes();
  }

  onUnknownFrame(_type: number): void {
    this.expectFrame(-1);
    this.session.guard.ignoredFrames.spend(this.session.nowMs());
  }

  onFrame(type: number, flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    this.expectFrame(type);
    switch (type) {
      case FrameType.HEADERS:
        this.headers(flags, streamId, bytes, start, end);
        break;
      case FrameType.CONTINUATION:
        this.continuation(flags, streamId, bytes, start, end);
        break;
      case FrameType.WINDOW_UPDATE:
        this.windowUpdate(streamId, bytes, start, end);
        break;
      case FrameType.RST_STREAM:
        this.rstStream(streamId, bytes, start, end);
        break;
      case FrameType.SETTINGS:
        this.settings(flags, streamId, bytes, start, end);
        break;
      case FrameType.PING:
        this.ping(flags, streamId, bytes, start, end);
        break;
      case FrameType.GOAWAY:
        this.goAway(streamId, bytes, start, end);
        break;
      default:
        this.priority(streamId, end - start);
    }
    this.session.checkBlockedBytes();
  }

  /** SETTINGS come first (section 3.4), and nothing comes between the frames of a field block (section 4.3). */
  private expectFrame(type: number): void {
    if (!this.session.peerSettings.received && type !== FrameType.SETTINGS) {
      protocolError('the first frame is not SETTINGS');
    }
    if (this.blockStreamId !== 0 && type !== FrameType.CONTINUATION) {
      protocolError('a frame within a field block');
    }
  }

  /** Null: the frame is not for the reader, a stream error was sent. */
  private admitData(stream: Http2Stream, length: number): Http2Stream | null {
    if (stream.remoteEnded) {
      this.session.streamError(stream, ErrorCode.STREAM_CLOSED);
      return null;
    }
    if (!stream.headersReceived) {
      this.session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
      return null;
    }
    stream.window.creditBytes -= length;
    if (stream.window.creditBytes < 0) {
      this.session.streamError(stream, ErrorCode.FLOW_CONTROL_ERROR);
      return null;
    }
    return stream;
  }

  private headers(flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    if (streamId === 0) protocolError('HEADERS on stream 0');
    this.session.checkHeadersId(streamId);
    let from = start;
    let to = end;
    if ((flags & Flag.PADDED) !== 0) {
      if (from >= end)
        throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, 'padded HEADERS without pad length');
      to -= bytes[from++]!;
    }
    if ((flags & Flag.PRIORITY) !== 0) from += 5;
    if (from > end)
      throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, 'HEADERS too short for its priority');
    if (from > to) protocolError('padding exceeds its HEADERS frame');
    const endsStream = (flags & Flag.END_STREAM) !== 0;
    if ((flags & Flag.END_HEADERS) !== 0) {
      this.session.messages.fieldBlock(streamId, endsStream, bytes, from, to);
      return;
    }
    this.blockStreamId = streamId;
    this.blockEndsStream = endsStream;
    this.continuations = 0;
    this.block = Buffer.from(bytes.subarray(from, to));
  }

  private continuation(flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    if (this.blockStreamId === 0 || streamId !== this.blockStreamId)
      protocolError('CONTINUATION out of place');
    if (++this.continuations > this.limits.maxContinuationFramesPerBlock) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, 'too many CONTINUATION frames');
    }
    if (this.block.length + end - start > this.limits.maxHeaderBlockBytes) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, 'field block too large');
    }
    // at most maxContinuationFramesPerBlock times: copying beats keeping a list
    this.block = Buffer.concat([this.block, bytes.subarray(start, end)]);
    if ((flags & Flag.END_HEADERS) === 0) return;
    const block = this.block;
    this.block = NO_BYTES;
    this.blockStreamId = 0;
    this.session.messages.fieldBlock(streamId, this.blockEndsStream, block, 0, block.length);
  }

  private windowUpdate(streamId: number, bytes: Buffer, start: number, end: number): void {
    const session = this.session;
    checkLength(end - start, 4, 'WINDOW_UPDATE');
    session.guard.windowUpdates.spend(session.nowMs());
    const increment = readUint31(bytes, start);
    if (streamId === 0) {
      if (increment === 0) protocolError('WINDOW_UPDATE by 0');
      session.sendFlow.openConnection(increment);
      return;
    }
    const stream = session.streams.get(streamId);
    if (stream === undefined) {
      if (session.isIdle(streamId)) protocolError('WINDOW_UPDATE on an idle stream');
      return;
    }
    if (increment === 0) {
      session.streamError(stream, ErrorCode.PROTOCOL_ERROR);
    } else if (!session.sendFlow.openStream(stream, increment)) {
      session.streamError(stream, ErrorCode.FLOW_CONTROL_ERROR);
    } else {
      session.sendFlow.serve();
    }
  }

  private rstStream(streamId: number, bytes: Buffer, start: number, end: number): void {
    const session = this.session;
    checkLength(end - start, 4, 'RST_STREAM');
    if (streamId === 0) protocolError('RST_STREAM on stream 0');
    const stream = session.streams.get(streamId);
    if (stream === undefined) {
      if (session.isIdle(streamId)) protocolError('RST_STREAM on an idle stream');
      session.guard.ignoredFrames.spend(session.nowMs());
      return;
    }
    if (session.role === 'server' && !stream.headersSent)
      session.guard.prematureResets.spend(session.nowMs());
    stream.lose(errorCode(readUint32(bytes, start)), false);
  }

  private settings(flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    const session = this.session;
    if (streamId !== 0) protocolError('SETTINGS on a stream');
    const length = end - start;
    if ((flags & Flag.ACK) !== 0) {
      checkLength(length, 0, 'SETTINGS ACK');
      if (!session.peerSettings.received) protocolError('the first frame is not SETTINGS');
      session.settingsAcknowledged();
      return;
    }
    if (length % 6 !== 0)
      throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, `SETTINGS of ${length} bytes`);
    session.guard.settingsFrames.spend(session.nowMs());
    if (length > this.limits.maxSettingsPerFrame * 6) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, 'too many settings in a frame');
    }
    session.applySettings(bytes, start, end);
  }

  private ping(flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    const session = this.session;
    if (streamId !== 0) protocolError('PING on a stream');
    checkLength(end - start, 8, 'PING');
    if ((flags & Flag.ACK) !== 0) {
      session.pingAcknowledged(readUint32(bytes, start), readUint32(bytes, start + 4));
      return;
    }
    session.guard.pingFrames.spend(session.nowMs());
    session.encoder.pingAck(bytes, start);
  }

  private goAway(streamId: number, bytes: Buffer, start: number, end: number): void {
    if (streamId !== 0) protocolError('GOAWAY on a stream');
    if (end - start < 8) throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, 'GOAWAY too short');
    this.session.goneAway(readUint31(bytes, start), errorCode(readUint32(bytes, start + 4)));
  }

  /** Deprecated by RFC 9113 section 5.3: checked and ignored. */
  private priority(streamId: number, length: number): void {
    const session = this.session;
    if (streamId === 0) protocolError('PRIORITY on stream 0');
    session.guard.ignoredFrames.spend(session.nowMs());
    if (length === 5) return;
    const stream = session.streams.get(streamId);
    if (stream !== undefined) session.streamError(stream, ErrorCode.FRAME_SIZE_ERROR);
    else if (session.isIdle(streamId)) checkLength(length, 5, 'PRIORITY');
  }
}
