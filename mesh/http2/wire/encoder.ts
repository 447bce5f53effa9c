import type { HpackEncoder } from '../hpack/encoder.js';
import type { ErrorCode, HeaderList, Output, Slab } from '../types.js';
import {
  Flag,
  FRAME_HEADER_BYTES,
  FrameType,
  MIN_MAX_FRAME_BYTES,
  writeFrameHeader,
  writeUint32,
} from './frame.js';

/** Debug data of a GOAWAY is for people: a short sentence. */
const MAX_REASON_BYTES = 200;

/**
 * Writes frames in place into the output's slab. Frames other than DATA go out also while the output is blocked; how many bytes that were
 * since it last drained is counted, for the session to end a peer that does not read.
 */
export class FrameEncoder {
  private readonly output: Output;
  private readonly hpack: HpackEncoder;
  private dataSlab: Slab | null = null;
  /** Bytes of frames other than DATA written while the output was blocked. */
  blockedBytes = 0;

  constructor(deps: { readonly output: Output; readonly hpack: HpackEncoder }) {
    this.output = deps.output;
    this.hpack = deps.hpack;
  }

  raw(bytes: Buffer): void {
    const slab = this.reserve(bytes.length);
    bytes.copy(slab.bytes, slab.end);
    slab.end += bytes.length;
  }

  settings(settings: readonly (readonly [id: number, value: number])[]): void {
    const slab = this.frame(FrameType.SETTINGS, 0, 0, settings.length * 6);
    for (const [id, value] of settings) {
      slab.bytes[slab.end] = id >>> 8;
      slab.bytes[slab.end + 1] = id;
      writeUint32(slab.bytes, slab.end + 2, value);
      slab.end += 6;
    }
  }

  settingsAck(): void {
    this.frame(FrameType.SETTINGS, Flag.ACK, 0, 0);
  }

  /** Answers with the 8 bytes at `at`. */
  pingAck(bytes: Buffer, at: number): void {
    const slab = this.frame(FrameType.PING, Flag.ACK, 0, 8);
    bytes.copy(slab.bytes, slab.end, at, at + 8);
    slab.end += 8;
  }

  /** A PING that carries `token` (32 bits) in its last 4 bytes. */
  ping(token: number): void {
    const slab = this.frame(FrameType.PING, 0, 0, 8);
    writeUint32(slab.bytes, slab.end, 0);
    writeUint32(slab.bytes, slab.end + 4, token);
    slab.end += 8;
  }

  goAway(lastStreamId: number, code: ErrorCode, reason: string): void {
    const debug = Buffer.from(reason.slice(0, MAX_REASON_BYTES), 'latin1');
    const slab = this.frame(FrameType.GOAWAY, 0, 0, 8 + debug.length);
    writeUint32(slab.bytes, slab.end, lastStreamId);
    writeUint32(slab.bytes, slab.end + 4, code);
    debug.copy(slab.bytes, slab.end + 8);
    slab.end += 8 + debug.length;
  }

  rstStream(streamId: number, code: ErrorCode): void {
    const slab = this.frame(FrameType.RST_STREAM, 0, streamId, 4);
    writeUint32(slab.bytes, slab.end, code);
    slab.end += 4;
  }

  windowUpdate(streamId: number, increment: number): void {
    const slab = this.frame(FrameType.WINDOW_UPDATE, 0, streamId, 4);
    writeUint32(slab.bytes, slab.end, increment);
    slab.end += 4;
  }

  /** HEADERS, and CONTINUATION frames where the block may exceed what every peer takes in one frame. */
  headers(streamId: number, headers: HeaderList, endStream: boolean): void {
    const streamFlag = endStream ? Flag.END_STREAM : 0;
    const bound = this.hpack.bound(headers);
    if (bound > MIN_MAX_FRAME_BYTES) {
      this.longHeaders(streamId, headers, streamFlag, bound);
      return;
    }
    const slab = this.reserve(FRAME_HEADER_BYTES + bound);
    const at = slab.end + FRAME_HEADER_BYTES;
    const end = this.hpack.encode(headers, slab.bytes, at);
    writeFrameHeader(
      slab.bytes,
      slab.end,
      end - at,
      FrameType.HEADERS,
      streamFlag | Flag.END_HEADERS,
      streamId,
    );
    slab.end = end;
  }

  /** Room for the payload of one DATA frame at `slab.end`; `commitData` follows. */
  beginData(max: number): Slab {
    const slab = this.output.reserve(FRAME_HEADER_BYTES + max);
    slab.end += FRAME_HEADER_BYTES;
    this.dataSlab = slab;
    return slab;
  }

  commitData(streamId: number, bytes: number, endStream: boolean): void {
    const slab = this.dataSlab!;
    const at = slab.end - FRAME_HEADER_BYTES;
    this.dataSlab = null;
    writeFrameHeader(slab.bytes, at, bytes, FrameType.DATA, endStream ? Flag.END_STREAM : 0, streamId);
    slab.end += bytes;
  }

  dropData(): void {
    if (this.dataSlab !== null) this.dataSlab.end -= FRAME_HEADER_BYTES;
    this.dataSlab = null;
  }

  /** DATA with END_STREAM and no payload. */
  endStream(streamId: number): void {
    this.frame(FrameType.DATA, Flag.END_STREAM, streamId, 0);
  }

  private longHeaders(streamId: number, headers: HeaderList, streamFlag: number, bound: number): void {
    const block = Buffer.allocUnsafeSlow(bound);
    const end = this.hpack.encode(headers, block, 0);
    let type: number = FrameType.HEADERS;
    for (let at = 0; at < end || type === FrameType.HEADERS; at += MIN_MAX_FRAME_BYTES) {
      const length = Math.min(MIN_MAX_FRAME_BYTES, end - at);
      const lastFlag = at + length === end ? Flag.END_HEADERS : 0;
      const slab = this.frame(
        type,
        type === FrameType.HEADERS ? streamFlag | lastFlag : lastFlag,
        streamId,
        length,
      );
      block.copy(slab.bytes, slab.end, at, at + length);
      slab.end += length;
      type = FrameType.CONTINUATION;
    }
  }

  /** Writes the header of a frame with `length` bytes of payload, which the caller writes at `slab.end`. */
  private frame(type: number, flags: number, streamId: number, length: number): Slab {
    const slab = this.reserve(FRAME_HEADER_BYTES + length);
    writeFrameHeader(slab.bytes, slab.end, length, type, flags, streamId);
    slab.end += FRAME_HEADER_BYTES;
    return slab;
  }

  private reserve(bytes: number): Slab {
    if (this.output.blocked) this.blockedBytes += bytes;
    return this.output.reserve(bytes);
  }
}
