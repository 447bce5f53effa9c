import { createSession } from '../session.js';
import type { HeaderList, Session, SessionOptions } from '../types.js';
import { CLIENT_PREFACE, FrameType } from '../wire/frame.js';
import { MemoryOutput } from './memory-output.js';
import { NaiveHpack } from './naive-hpack.js';
import { Recorder } from './recorder.js';

/** Frames written and read in the most obvious way, for tests. */
export interface RawFrame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, id: number, payload: Buffer | string = ''): Buffer {
  const body = typeof payload === 'string' ? Buffer.from(payload, 'hex') : payload;
  const header = new DataView(new ArrayBuffer(9));
  header.setUint32(0, body.length * 256 + type);
  header.setUint8(4, flags);
  header.setUint32(5, id);
  return Buffer.concat([Buffer.from(header.buffer), body]);
}

export function parseFrames(bytes: Buffer): RawFrame[] {
  const frames: RawFrame[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length; ) {
    const length = Math.floor(view.getUint32(at) / 256);
    const payload = bytes.subarray(at + 9, at + 9 + length);
    if (payload.length !== length) throw new Error('cut frame');
    frames.push({
      type: view.getUint8(at + 3),
      flags: view.getUint8(at + 4),
      id: view.getUint32(at + 5),
      payload,
    });
    at += 9 + length;
  }
  return frames;
}

export function uint32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value >>> 0, i * 4);
  return bytes;
}

export function settings(...pairs: [id: number, value: number][]): Buffer {
  const entries = pairs.map(([id, value]) =>
    Buffer.concat([Buffer.from([id >> 8, id & 255]), uint32(value)]),
  );
  return frame(FrameType.SETTINGS, 0, 0, Buffer.concat(entries));
}

export const SETTINGS_ACK = frame(FrameType.SETTINGS, 1, 0);
export const GET: HeaderList = [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':authority', 'example'],
  [':path', '/'],
];

/** A field block without dynamic table entries, so that blocks do not depend on each other. */
export function block(headers: HeaderList): Buffer {
  return new NaiveHpack().encode(headers, () => 'plain');
}

/** HEADERS, whole. */
export function headers(id: number, list: HeaderList, endStream = false): Buffer {
  return frame(FrameType.HEADERS, endStream ? 5 : 4, id, block(list));
}

export function data(id: number, payload: Buffer | string, endStream = false): Buffer {
  const body = typeof payload === 'string' ? Buffer.from(payload, 'latin1') : payload;
  return frame(FrameType.DATA, endStream ? 1 : 0, id, body);
}

export function windowUpdate(id: number, increment: number): Buffer {
  return frame(FrameType.WINDOW_UPDATE, 0, id, uint32(increment));
}

export function rstStream(id: number, code: number): Buffer {
  return frame(FrameType.RST_STREAM, 0, id, uint32(code));
}

/** One session of ours, the test being its peer on the level of frames. */
export class RawPeer {
  readonly output = new MemoryOutput();
  readonly recorder = new Recorder();
  readonly session: Session;
  nowMs = 1000;

  constructor(options: SessionOptions) {
    this.session = createSession(options, {
      output: this.output,
      handler: this.recorder,
      nowMs: () => this.nowMs,
    });
  }

  /** A server of ours after the client's preface, SETTINGS and ACK; what it has sent so far is taken. */
  static server(options: Partial<SessionOptions> = {}): RawPeer {
    const peer = new RawPeer({ role: 'server', ...options });
    peer.send(CLIENT_PREFACE, settings(), SETTINGS_ACK);
    peer.output.take();
    return peer;
  }

  /** A client of ours after the server's SETTINGS and ACK. */
  static client(options: Partial<SessionOptions> = {}): RawPeer {
    const peer = new RawPeer({ role: 'client', ...options });
    peer.send(settings(), SETTINGS_ACK);
    peer.output.take();
    return peer;
  }

  send(...frames: Buffer[]): void {
    const bytes = Buffer.concat(frames);
    this.session.receive(bytes, 0, bytes.length);
  }

  /** Frames that our session wrote since the last call. */
  sent(): RawFrame[] {
    return parseFrames(this.output.take());
  }

  /** Code of the GOAWAY that it wrote, or null. */
  goAwayCode(): number | null {
    const goAway = this.sent().find(({ type }) => type === FrameType.GOAWAY);
    return goAway === undefined ? null : goAway.payload.readUInt32BE(4);
  }

  /** [stream, code] of the RST_STREAM frames that it wrote. */
  resets(): [number, number][] {
    const resets = this.sent().filter(({ type }) => type === FrameType.RST_STREAM);
    return resets.map(({ id, payload }) => [id, payload.readUInt32BE(0)]);
  }
}
