import { ConnectionError } from '../errors.js';
import { ErrorCode } from '../types.js';
import { CLIENT_PREFACE, Flag, FRAME_HEADER_BYTES, FrameType, readUint31 } from './frame.js';

/** Where decoded frames go. Buffers are valid during the call only. */
export interface FrameSink {
  /** A DATA frame begins; `length` is its whole payload with padding, as flow control counts it. */
  onDataStart(streamId: number, flags: number, length: number): void;
  /** Bytes that are padding (with the pad length byte), known before any payload comes. */
  onDataPadding(bytes: number): void;
  /** Payload as it arrives, in as many pieces as the transport made of it. Never empty. */
  onDataBytes(bytes: Buffer, start: number, end: number): void;
  /** The frame's last byte was given, padding included. */
  onDataEnd(): void;
  /** Any other known frame, payload whole in [start, end). */
  onFrame(type: number, flags: number, streamId: number, bytes: Buffer, start: number, end: number): void;
  /** A frame of a type we do not know; its payload is skipped. */
  onUnknownFrame(type: number): void;
}

export interface DecoderOptions {
  /** Server: the client preface comes first. */
  readonly expectPreface: boolean;
  /** SETTINGS_MAX_FRAME_SIZE that we announced. */
  readonly maxFrameBytes: number;
  /** A HEADERS or CONTINUATION frame above this is refused before it is gathered. */
  readonly maxHeaderBlockBytes: number;
  /** Same for SETTINGS and GOAWAY. */
  readonly maxControlFrameBytes: number;
}

const State = { PREFACE: 0, HEADER: 1, PAD_LENGTH: 2, DATA: 3, PADDING: 4, GATHER: 5, SKIP: 6 } as const;
type State = (typeof State)[keyof typeof State];

const NO_BYTES = Buffer.alloc(0);
const FIRST_SIDE_BYTES = 512;

/**
 * Cuts a byte stream, in any chunking, into frames (RFC 9113 section 4). DATA payload is passed on where it lies; other frames are parsed
 * where they lie if they are whole, else gathered in a side buffer that grows with what arrived, not with what was announced.
 * Throws `ConnectionError`; after that, or after `stop`, it must not be fed again.
 */
export class FrameDecoder {
  private readonly options: DecoderOptions;
  private readonly sink: FrameSink;
  private state: State;
  private stopped = false;
  private type = 0;
  private flags = 0;
  private streamId = 0;
  /** Bytes of the current part (payload, padding, gathered frame) that are still to come. */
  private left = 0;
  private padBytes = 0;
  private readonly header = Buffer.alloc(FRAME_HEADER_BYTES);
  /** Filled bytes of `header` or `side`, or matched bytes of the preface. */
  private filled = 0;
  private side = NO_BYTES;

  constructor(options: DecoderOptions, sink: FrameSink) {
    this.options = options;
    this.sink = sink;
    this.state = options.expectPreface ? State.PREFACE : State.HEADER;
  }

  /** Ends the loop of a running `push` after the current callback. */
  stop(): void {
    this.stopped = true;
  }

  push(bytes: Buffer, start: number, end: number): void {
    let at = start;
    while (at < end && !this.stopped) {
      switch (this.state) {
        case State.HEADER:
          at = this.readHeader(bytes, at, end);
          break;
        case State.DATA:
          at = this.readData(bytes, at, end);
          break;
        case State.PAD_LENGTH:
          this.readPadLength(bytes[at]!);
          at++;
          break;
        case State.GATHER:
          at = this.gather(bytes, at, end);
          break;
        case State.PREFACE:
          at = this.readPreface(bytes, at, end);
          break;
        default:
          at = this.skip(at, end);
      }
    }
  }

  private readHeader(bytes: Buffer, at: number, end: number): number {
    if (this.filled === 0 && end - at >= FRAME_HEADER_BYTES) {
      return this.startFrame(bytes, at, bytes, at + FRAME_HEADER_BYTES, end);
    }
    const take = Math.min(FRAME_HEADER_BYTES - this.filled, end - at);
    for (let i = 0; i < take; i++) this.header[this.filled + i] = bytes[at + i]!;
    this.filled += take;
    if (this.filled < FRAME_HEADER_BYTES) return at + take;
    this.filled = 0;
    return this.startFrame(this.header, 0, bytes, at + take, end);
  }

  /** The frame header lies at `header[headerAt]`, its payload begins at `bytes[at]`. Returns where reading goes on. */
  private startFrame(header: Buffer, headerAt: number, bytes: Buffer, at: number, end: number): number {
    const length = (header[headerAt]! << 16) | (header[headerAt + 1]! << 8) | header[headerAt + 2]!;
    this.type = header[headerAt + 3]!;
    this.flags = header[headerAt + 4]!;
    this.streamId = readUint31(header, headerAt + 5);
    if (length > this.options.maxFrameBytes) {
      throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, `frame of ${length} bytes`);
    }
    this.left = length;
    if (this.type === FrameType.DATA) {
      this.startData(length);
      return at;
    }
    if (this.type > FrameType.CONTINUATION) {
      this.sink.onUnknownFrame(this.type);
      this.state = length === 0 ? State.HEADER : State.SKIP;
      return at;
    }
    this.checkLength(length);
    if (length <= end - at) {
      this.sink.onFrame(this.type, this.flags, this.streamId, bytes, at, at + length);
      return at + length;
    }
    this.state = State.GATHER;
    return at;
  }

  /** Refuses what would not be gathered, whether or not this chunk happens to hold it whole. */
  private checkLength(length: number): void {
    if (this.type === FrameType.PUSH_PROMISE) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, 'PUSH_PROMISE, and push is off');
    }
    const isHeaders = this.type === FrameType.HEADERS || this.type === FrameType.CONTINUATION;
    const limit = isHeaders ? this.options.maxHeaderBlockBytes : this.options.maxControlFrameBytes;
    if (length > limit) {
      throw new ConnectionError(
        ErrorCode.ENHANCE_YOUR_CALM,
        `frame of type ${this.type} and ${length} bytes`,
      );
    }
  }

  private startData(length: number): void {
    const isPadded = (this.flags & Flag.PADDED) !== 0;
    if (isPadded && length === 0) {
      throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, 'padded DATA without pad length');
    }
    this.padBytes = 0;
    this.state = isPadded ? State.PAD_LENGTH : State.DATA;
    this.sink.onDataStart(this.streamId, this.flags, length);
    if (length === 0) this.finishData();
  }

  private readPadLength(padLength: number): void {
    this.left--;
    if (padLength > this.left) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, 'padding exceeds its DATA frame');
    }
    this.left -= padLength;
    this.padBytes = padLength;
    this.sink.onDataPadding(padLength + 1);
    if (this.left === 0) this.endPayload();
    else this.state = State.DATA;
  }

  private readData(bytes: Buffer, at: number, end: number): number {
    const stop = Math.min(at + this.left, end);
    this.left -= stop - at;
    // the state moves on first: a callback may look at it, and must find the frame where it is
    this.sink.onDataBytes(bytes, at, stop);
    if (this.left === 0) this.endPayload();
    return stop;
  }

  private endPayload(): void {
    if (this.padBytes === 0) {
      this.finishData();
      return;
    }
    this.left = this.padBytes;
    this.state = State.PADDING;
  }

  private finishData(): void {
    this.state = State.HEADER;
    this.sink.onDataEnd();
  }

  private skip(at: number, end: number): number {
    const stop = Math.min(at + this.left, end);
    this.left -= stop - at;
    if (this.left > 0) return stop;
    if (this.state === State.PADDING) this.finishData();
    else this.state = State.HEADER;
    return stop;
  }

  private gather(bytes: Buffer, at: number, end: number): number {
    const take = Math.min(this.left, end - at);
    this.growSide(this.filled + take);
    bytes.copy(this.side, this.filled, at, at + take);
    this.filled += take;
    this.left -= take;
    if (this.left > 0) return at + take;
    const length = this.filled;
    const side = this.side;
    this.filled = 0;
    this.side = NO_BYTES;
    this.state = State.HEADER;
    this.sink.onFrame(this.type, this.flags, this.streamId, side, 0, length);
    return at + take;
  }

  private growSide(needed: number): void {
    if (needed <= this.side.length) return;
    const grown = Buffer.allocUnsafe(Math.max(needed, this.side.length * 2, FIRST_SIDE_BYTES));
    this.side.copy(grown, 0, 0, this.filled);
    this.side = grown;
  }

  private readPreface(bytes: Buffer, at: number, end: number): number {
    while (at < end && this.filled < CLIENT_PREFACE.length) {
      if (bytes[at] !== CLIENT_PREFACE[this.filled]) {
        throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, 'no HTTP/2 connection preface');
      }
      at++;
      this.filled++;
    }
    if (this.filled === CLIENT_PREFACE.length) {
      this.filled = 0;
      this.state = State.HEADER;
    }
    return at;
  }
}
