import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ConnectionError } from '../errors.js';
import { naiveRead, type WireEvent } from '../testing/naive-reader.js';
import { frame } from '../testing/raw.js';
import { FrameDecoder, type FrameSink } from './decoder.js';

const RUNS = { seed: 20260822, numRuns: 500 };
const MAX_FRAME_BYTES = 20_000;
const MAX_BLOCK_BYTES = 18_000;

class Tape implements FrameSink {
  readonly events: WireEvent[] = [];
  private get data(): Extract<WireEvent, { type: 'data' }> {
    return this.events.at(-1) as Extract<WireEvent, { type: 'data' }>;
  }
  onDataStart(id: number, flags: number, length: number): void {
    this.events.push({ type: 'data', id, flags, length, text: '', padding: 0 });
  }
  onDataPadding(bytes: number): void {
    this.data.padding += bytes;
  }
  onDataBytes(bytes: Buffer, start: number, end: number): void {
    expect(end).toBeGreaterThan(start);
    this.data.text += bytes.toString('latin1', start, end);
  }
  onDataEnd(): void {}
  onFrame(of: number, flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    this.events.push({ type: 'frame', of, id, flags, hex: bytes.toString('hex', start, end) });
  }
  onUnknownFrame(of: number): void {
    this.events.push({ type: 'unknown', of });
  }
}

function read(bytes: Buffer, chunks: Iterable<number>): WireEvent[] {
  const tape = new Tape();
  const options = {
    expectPreface: false,
    maxFrameBytes: MAX_FRAME_BYTES,
    maxHeaderBlockBytes: MAX_BLOCK_BYTES,
    maxControlFrameBytes: 16_384,
  };
  const decoder = new FrameDecoder(options, tape);
  try {
    let at = 0;
    for (const length of chunks) {
      const end = Math.min(bytes.length, at + length);
      // each chunk in a buffer of its own, scribbled over after the call: nothing may be kept
      const lent = Buffer.from(bytes.subarray(at, end));
      decoder.push(lent, 0, lent.length);
      lent.fill(0xee);
      at = end;
    }
    if (at < bytes.length) decoder.push(bytes, at, bytes.length);
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
    tape.events.push({ type: 'error' });
  }
  return tape.events;
}

const anyFrame = fc
  .tuple(
    fc.oneof(
      { weight: 3, arbitrary: fc.constant(0) },
      { weight: 5, arbitrary: fc.constantFrom(1, 2, 3, 4, 6, 7, 8, 9) },
      fc.nat(255),
    ),
    fc.nat(255),
    fc.nat(0xffffffff),
    fc.oneof(
      { weight: 5, arbitrary: fc.uint8Array({ maxLength: 40 }) },
      fc.uint8Array({ maxLength: 300 }),
      fc.constantFrom(new Uint8Array(17_000), new Uint8Array(19_000)),
    ),
  )
  .map(([type, flags, id, payload]) => frame(type, flags, id, Buffer.from(payload)));
const wire = fc.array(anyFrame, { maxLength: 12 }).chain((frames) => {
  const all = Buffer.concat(frames);
  return fc.nat(all.length).map((cut) => (cut % 3 === 0 ? all.subarray(0, cut) : all));
});

describe('the frame decoder', () => {
  test('hears what its naive twin hears, in whatever chunks it comes', () => {
    const chunks = fc.array(fc.oneof(fc.nat(12), fc.nat(400)), { maxLength: 60 });
    fc.assert(
      fc.property(wire, chunks, (bytes, sizes) => {
        const expected = naiveRead(bytes, MAX_FRAME_BYTES, MAX_BLOCK_BYTES);
        expect(read(bytes, [])).toEqual(expected);
        expect(read(bytes, sizes)).toEqual(expected);
      }),
      RUNS,
    );
  });

  test('byte by byte too', () => {
    fc.assert(
      fc.property(wire, (bytes) => {
        const short = bytes.subarray(0, 2000);
        expect(read(short, new Array<number>(short.length).fill(1))).toEqual(
          naiveRead(short, MAX_FRAME_BYTES, MAX_BLOCK_BYTES),
        );
      }),
      { ...RUNS, numRuns: 60 },
    );
  });
});
