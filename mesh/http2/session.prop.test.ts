import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { DEFAULT_SESSION_LIMITS as LIMITS } from './session-limits.js';
import {
  block,
  data,
  frame,
  GET,
  headers,
  RawPeer,
  rstStream,
  SETTINGS_ACK,
  settings,
  uint32,
  windowUpdate,
} from './testing/raw.js';
import type { Event } from './testing/recorder.js';
import type { HeaderList } from './types.js';
import { CLIENT_PREFACE, FrameType } from './wire/frame.js';

const RUNS = { seed: 20260822, numRuns: 300 };

function echo(peer: RawPeer): void {
  peer.recorder.onRequestHook = (stream, list) => {
    if (list.length % 2 === 0) stream.sendHeaders([[':status', '200']], list.length % 4 === 0);
  };
}

/** Feeds a fresh server in the given chunks (the rest in one) and returns what it told. */
function serve(bytes: Buffer, chunks: Iterable<number>): { events: Event[]; peer: RawPeer } {
  const peer = new RawPeer({ role: 'server' });
  echo(peer);
  let at = 0;
  for (const length of chunks) {
    const lent = Buffer.from(bytes.subarray(at, at + length));
    peer.session.receive(lent, 0, lent.length);
    lent.fill(0xee);
    at += length;
  }
  if (at < bytes.length) peer.session.receive(bytes, at, bytes.length);
  return { events: peer.recorder.events, peer };
}

const id = fc.integer({ min: 0, max: 12 });
const list: fc.Arbitrary<HeaderList> = fc.array(
  fc.tuple(
    fc.constantFrom('a', 'content-length', 'te', 'x-b', ':path', 'BAD'),
    fc.constantFrom('1', 'trailers', '3', ''),
  ),
  { maxLength: 3 },
);
const payload = fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes));

/** Frames as a half-sane client would send them, so that deep states are reached, and some as no client would. */
const clientFrame = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(id, list, fc.boolean())
      .map(([on, more, end]) => headers(on | 1, [...GET, ...more], end)),
  },
  { weight: 2, arbitrary: fc.tuple(id, list).map(([on, more]) => headers(on | 1, more, true)) },
  {
    weight: 6,
    arbitrary: fc.tuple(id, payload, fc.boolean()).map(([on, bytes, end]) => data(on | 1, bytes, end)),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(id, payload)
      .map(([on, bytes]) => frame(0, 8, on | 1, Buffer.concat([Buffer.from([bytes.length]), bytes, bytes]))),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(id, fc.constantFrom(1, 1000, 0x7fffffff, 0)).map(([on, by]) => windowUpdate(on, by)),
  },
  { weight: 2, arbitrary: id.map((on) => rstStream(on | 1, 8)) },
  { weight: 1, arbitrary: fc.tuple(fc.nat(8), fc.nat(100_000)).map(([of, value]) => settings([of, value])) },
  {
    weight: 2,
    arbitrary: id.map((on) =>
      Buffer.concat([frame(1, 0, on | 1, block(GET)), frame(9, 4, on | 1, block([['c', 'd']]))]),
    ),
  },
  { weight: 1, arbitrary: id.map((byte) => frame(FrameType.PING, 0, 0, Buffer.alloc(8, byte))) },
  { weight: 1, arbitrary: fc.constant(frame(FrameType.GOAWAY, 0, 0, uint32(0, 0))) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.nat(12), fc.nat(255), id, payload)
      .map(([type, flags, on, bytes]) => frame(type, flags, on, bytes)),
  },
);
const HELLO = [CLIENT_PREFACE, settings(), SETTINGS_ACK];
const conversation = fc
  .array(clientFrame, { maxLength: 25 })
  .map((frames) => Buffer.concat([...HELLO, ...frames]));

describe('a server session', () => {
  test('tells the same in every chunking, and writes the same', () => {
    const chunks = fc.array(fc.oneof(fc.nat(12), fc.nat(100)), { maxLength: 80 });
    fc.assert(
      fc.property(conversation, chunks, (bytes, sizes) => {
        const whole = serve(bytes, []);
        const cut = serve(bytes, sizes);
        const single = serve(bytes, new Array<number>(bytes.length).fill(1));
        expect(cut.events).toEqual(whole.events);
        expect(single.events).toEqual(whole.events);
        const written = whole.peer.output.take();
        expect(cut.peer.output.take().equals(written)).toBe(true);
        expect(single.peer.output.take().equals(written)).toBe(true);
      }),
      RUNS,
    );
  });

  test('whatever a client sends: nothing is thrown, the books balance, the output is bounded', () => {
    fc.assert(
      fc.property(conversation, fc.uint8Array({ maxLength: 200 }), (bytes, noise) => {
        const { events, peer } = serve(Buffer.concat([bytes, noise]), []);
        const closed = events.filter(({ type }) => type === 'closed');
        expect(closed.length).toBeLessThanOrEqual(1);
        expect(peer.output.pendingBytes).toBeLessThan(LIMITS.maxBlockedControlBytes);
        checkStories(events);
        peer.session.transportClosed();
        expect(peer.session.openStreams).toBe(0);
        expect((Reflect.get(peer.session, 'receiveFlow') as { grantedBytes: number }).grantedBytes).toBe(0);
      }),
      { ...RUNS, numRuns: 1500 },
    );
  });

  test('pure noise after the preface', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (noise, asServer) => {
        const peer = new RawPeer({ role: asServer ? 'server' : 'client' });
        peer.send(asServer ? CLIENT_PREFACE : Buffer.alloc(0), settings(), Buffer.from(noise));
        expect(peer.output.pendingBytes).toBeLessThan(10_000);
      }),
      { ...RUNS, numRuns: 2000 },
    );
  });
});

/** Per stream: a request first; at most one end or reset, and after a reset nothing. */
function checkStories(events: Event[]): void {
  const stories = new Map<number, string[]>();
  for (const event of events) {
    if (!('id' in event)) continue;
    const story = stories.get(event.id) ?? [];
    story.push(event.type);
    stories.set(event.id, story);
  }
  for (const story of stories.values()) {
    expect(story[0]).toBe('request');
    expect(story.filter((type) => type === 'request')).toHaveLength(1);
    expect(story.filter((type) => type === 'end').length).toBeLessThanOrEqual(1);
    const reset = story.indexOf('reset');
    if (reset >= 0) expect(reset).toBe(story.length - 1);
    const end = story.indexOf('end');
    if (end >= 0)
      expect(story.slice(end + 1).every((type) => type === 'reset' || type === 'writable')).toBe(true);
  }
}
