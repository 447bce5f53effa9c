import { Flag, FrameType } from '../wire/frame.js';

/** What `FrameSink` hears of a byte stream, with the pieces of a DATA frame's payload joined. */
export type WireEvent =
  | { type: 'data'; id: number; flags: number; length: number; text: string; padding: number }
  | { type: 'frame'; of: number; id: number; flags: number; hex: string }
  | { type: 'unknown'; of: number }
  | { type: 'error' };

const ERROR: WireEvent = { type: 'error' };
const MAX_CONTROL_FRAME_BYTES = 16_384;

/** The frame decoder written the obvious way, over the whole input at once: the twin of the fast one in property tests. */
export function naiveRead(bytes: Buffer, maxFrameBytes: number, maxHeaderBlockBytes: number): WireEvent[] {
  const events: WireEvent[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 9 <= bytes.length && events.at(-1)?.type !== 'error'; ) {
    const length = view.getUint32(at) >>> 8;
    const of = view.getUint8(at + 3);
    const flags = view.getUint8(at + 4);
    const id = view.getUint32(at + 5) & 0x7fffffff;
    const payload = bytes.subarray(at + 9, at + 9 + length);
    const isBlock = of === FrameType.HEADERS || of === FrameType.CONTINUATION;
    at += 9 + length;
    if (length > maxFrameBytes) events.push(ERROR);
    else if (of === FrameType.DATA) events.push(...readData(payload, flags, id, length));
    else if (of > FrameType.CONTINUATION) events.push({ type: 'unknown', of });
    else if (of === FrameType.PUSH_PROMISE) events.push(ERROR);
    else if (length > (isBlock ? maxHeaderBlockBytes : MAX_CONTROL_FRAME_BYTES)) events.push(ERROR);
    else if (payload.length === length)
      events.push({ type: 'frame', of, id, flags, hex: payload.toString('hex') });
  }
  return events;
}

function readData(payload: Buffer, flags: number, id: number, length: number): WireEvent[] {
  const isPadded = (flags & Flag.PADDED) !== 0;
  const start = { type: 'data', id, flags, length, text: '', padding: 0 } as const;
  if (isPadded && length === 0) return [ERROR];
  if (!isPadded || payload.length === 0) return [{ ...start, text: payload.toString('latin1') }];
  const padding = payload[0]!;
  if (padding >= length) return [start, ERROR];
  const text = payload.toString('latin1', 1, Math.min(payload.length, length - padding));
  return [{ ...start, text, padding: padding + 1 }];
}
