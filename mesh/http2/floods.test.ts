import { describe, expect, test } from '@jest/globals';
import { DEFAULT_SESSION_LIMITS as LIMITS } from './session-limits.js';
import {
  block,
  data,
  frame,
  GET,
  headers,
  RawPeer,
  rstStream,
  settings,
  windowUpdate,
} from './testing/raw.js';
import { ErrorCode, type HeaderList } from './types.js';
import { FrameType, Setting } from './wire/frame.js';

const { HEADERS, PRIORITY, PING, SETTINGS, GOAWAY, CONTINUATION } = FrameType;
const CALM = ErrorCode.ENHANCE_YOUR_CALM;
const PING_FRAME = frame(PING, 0, 0, Buffer.alloc(8));

/** Sends until our session ends or `rounds` are over; returns the code and how many rounds it took. */
function flood(
  peer: RawPeer,
  rounds: number,
  make: (i: number) => Buffer,
): { code: number | null; after: number } {
  for (let i = 0; i < rounds; i++) {
    peer.send(make(i));
    const code = peer.goAwayCode();
    if (code !== null) return { code, after: i };
  }
  return { code: null, after: rounds };
}

/** A flood of `burst` passes, one more ends the session; and as many a second go on for ever. */
function expectBudget(
  make: (i: number) => Buffer,
  burst: number,
  perSecond: number,
  open?: (peer: RawPeer) => void,
): void {
  const hasty = RawPeer.server();
  open?.(hasty);
  const { code, after } = flood(hasty, burst + 10, make);
  expect(code).toBe(CALM);
  expect(Math.abs(after - burst)).toBeLessThanOrEqual(2);
  expect(hasty.recorder.events.at(-1)).toMatchObject({ type: 'closed', code: CALM });

  const steady = RawPeer.server();
  open?.(steady);
  const calm = flood(steady, 3 * burst, (i) => {
    steady.nowMs += 1000 / perSecond;
    return make(i);
  });
  expect(calm.code).toBeNull();
}

describe('floods cost the peer its connection', () => {
  test('rapid reset (CVE-2023-44487)', () => {
    const make = (i: number) =>
      Buffer.concat([headers(2 * i + 1, GET, true), rstStream(2 * i + 1, ErrorCode.CANCEL)]);
    expectBudget(make, LIMITS.prematureResetsBurst, LIMITS.prematureResetsPerSecond);
  });

  test('a reset after our response headers is no rapid reset', () => {
    const peer = RawPeer.server();
    peer.recorder.onRequestHook = (stream) => stream.sendHeaders([[':status', '200']], false);
    const make = (i: number) =>
      Buffer.concat([headers(2 * i + 1, GET), rstStream(2 * i + 1, ErrorCode.CANCEL)]);
    expect(flood(peer, 3 * LIMITS.prematureResetsBurst, make).code).toBeNull();
  });

  test.each<[string, (id: number) => Buffer]>([
    ['WINDOW_UPDATE by 0', (id) => windowUpdate(id, 0)],
    ['window overflow', (id) => windowUpdate(id, 0x7fffffff)],
    ['DATA after END_STREAM', (id) => data(id, 'x')],
    ['HEADERS after END_STREAM', (id) => headers(id, [['x', 'y']], true)],
    ['PRIORITY of a wrong length', (id) => frame(PRIORITY, 0, id, '00')],
  ])('MadeYouReset (CVE-2025-8671): %s', (_name, provoke) => {
    const make = (i: number) => Buffer.concat([headers(2 * i + 1, GET, true), provoke(2 * i + 1)]);
    expectBudget(make, LIMITS.streamErrorsBurst, LIMITS.streamErrorsPerSecond);
  });

  test('malformed requests', () => {
    expectBudget((i) => headers(2 * i + 1, [], true), LIMITS.streamErrorsBurst, LIMITS.streamErrorsPerSecond);
  });

  test('streams beyond the limit are refused, a flood of them is an end', () => {
    const fill = (peer: RawPeer) => {
      for (let i = 0; i < 200; i++) peer.send(headers(2 * i + 1, GET));
    };
    expectBudget(
      (i) => headers(401 + 2 * i, GET),
      LIMITS.refusedStreamsBurst,
      LIMITS.refusedStreamsPerSecond,
      fill,
    );
  });

  test('SETTINGS', () => {
    const toggle = (i: number) => settings([Setting.INITIAL_WINDOW_SIZE, i % 2 === 0 ? 0 : 65_535]);
    // the handshake's own SETTINGS took one
    expectBudget(toggle, LIMITS.settingsFramesBurst - 1, LIMITS.settingsFramesPerSecond);
  });

  test('many settings in one frame', () => {
    const pairs = Array.from({ length: LIMITS.maxSettingsPerFrame + 1 }, (): [number, number] => [0x99, 1]);
    expect(flood(RawPeer.server(), 1, () => settings(...pairs.slice(1))).code).toBeNull();
    expect(flood(RawPeer.server(), 1, () => settings(...pairs)).code).toBe(CALM);
  });

  test('PING', () => {
    expectBudget(() => PING_FRAME, LIMITS.pingFramesBurst, LIMITS.pingFramesPerSecond);
  });

  test('empty DATA', () => {
    const open = (peer: RawPeer) => peer.send(headers(1, GET));
    expectBudget(() => data(1, ''), LIMITS.emptyDataFramesBurst, LIMITS.emptyDataFramesPerSecond, open);
  });

  test.each<[string, (i: number) => Buffer]>([
    ['PRIORITY', (i) => frame(PRIORITY, 0, 2 * i + 1, '0000000001')],
    ['unknown frames', () => frame(0x99, 0, 0, 'abcd')],
    ['RST_STREAM on closed streams', () => rstStream(1, 8)],
    ['SETTINGS ACKs', () => frame(SETTINGS, 1, 0)],
    ['PING ACKs', () => frame(PING, 1, 0, Buffer.alloc(8))],
    ['GOAWAY', () => frame(GOAWAY, 0, 0, Buffer.alloc(8))],
  ])('frames without effect: %s', (_name, make) => {
    const open = (peer: RawPeer) => {
      // stream 3 keeps the session from being drained by GOAWAY
      peer.send(headers(1, GET), rstStream(1, 8), headers(3, GET));
    };
    expectBudget(make, LIMITS.ignoredFramesBurst, LIMITS.ignoredFramesPerSecond, open);
  });

  test('WINDOW_UPDATE, tiny or on closed streams', () => {
    const open = (peer: RawPeer) => peer.send(headers(1, GET));
    expectBudget(() => windowUpdate(1, 1), LIMITS.windowUpdatesBurst, LIMITS.windowUpdatesPerSecond, open);
    expectBudget(() => windowUpdate(0, 1), LIMITS.windowUpdatesBurst, LIMITS.windowUpdatesPerSecond);
    const close = (peer: RawPeer) => peer.send(headers(1, GET), rstStream(1, 8));
    expectBudget(() => windowUpdate(1, 1), LIMITS.windowUpdatesBurst, LIMITS.windowUpdatesPerSecond, close);
  });

  test('a window of one byte at a time makes us send one byte at a time, and ends', () => {
    const peer = RawPeer.server();
    peer.send(settings([Setting.INITIAL_WINDOW_SIZE, 0]), headers(1, GET));
    const stream = peer.recorder.streams.get(1)!;
    stream.sendHeaders([[':status', '200']], false);
    const body = Buffer.alloc(100_000);
    peer.recorder.onWritable = () => {
      stream.sendData(body, 0, body.length, false);
    };
    stream.sendCapacity();
    const { code, after } = flood(peer, 100_000, () => {
      stream.sendCapacity();
      return windowUpdate(1, 1);
    });
    expect(code).toBe(CALM);
    expect(after).toBeLessThan(2 * LIMITS.windowUpdatesBurst);
  });

  test('window updates for what we did send are no flood', () => {
    const peer = RawPeer.server();
    peer.send(headers(1, GET));
    const stream = peer.recorder.streams.get(1)!;
    stream.sendHeaders([[':status', '200']], false);
    for (let i = 0; i < 3 * LIMITS.windowUpdatesBurst; i++) {
      stream.sendData(Buffer.alloc(100), 0, 100, false);
      peer.send(windowUpdate(1, 100), windowUpdate(0, 100));
    }
    expect(peer.goAwayCode()).toBeNull();
  });

  test('1xx responses', () => {
    const peer = RawPeer.client();
    peer.session.request(GET, peer.recorder, true);
    const limit = LIMITS.maxInformationalResponsesPerStream;
    expect(flood(peer, limit + 5, () => headers(1, [[':status', '103']]))).toEqual({
      code: CALM,
      after: limit,
    });
  });
});

describe('field blocks', () => {
  const BIG: HeaderList = [...GET, ['x', 'y'.repeat(70_000)]];

  test('CONTINUATION flood, of empty and of full frames (CVE-2024-27316)', () => {
    const start = frame(HEADERS, 0, 1, block(GET));
    const empty = RawPeer.server();
    empty.send(start);
    const limit = LIMITS.maxContinuationFramesPerBlock;
    expect(flood(empty, 100, () => frame(CONTINUATION, 0, 1))).toEqual({ code: CALM, after: limit });
    const full = RawPeer.server();
    full.send(start);
    const result = flood(full, 100, () => frame(CONTINUATION, 0, 1, Buffer.alloc(16_384, 0x82)));
    expect(result.code).toBe(CALM);
    expect(result.after).toBeLessThanOrEqual(LIMITS.maxHeaderBlockBytes / 16_384);
  });

  test('a HEADERS frame above the limit is refused at its header, before any of it is kept', () => {
    const peer = RawPeer.server();
    peer.send(frame(HEADERS, 4, 1, Buffer.alloc(LIMITS.maxHeaderBlockBytes + 1)).subarray(0, 9));
    expect(peer.goAwayCode()).toBe(CALM);
  });

  test('HPACK bomb: one octet a field, counted while decoding', () => {
    const peer = RawPeer.server();
    const entry = Buffer.concat([Buffer.from('4001617f8001', 'hex'), Buffer.alloc(255, 'b')]);
    const bomb = Buffer.concat([block(GET), entry, Buffer.alloc(100_000, 0xbe)]);
    peer.send(frame(HEADERS, 5, 1, bomb));
    expect(peer.recorder.of('request')).toEqual([]);
    const sent = peer.sent();
    expect(sent.some(({ type, id }) => type === HEADERS && id === 1)).toBe(true);
    expect(peer.session.openStreams).toBe(0);
  });

  test('a request whose list is too large gets 431 and is no request', () => {
    const peer = RawPeer.server();
    peer.send(frame(HEADERS, 4, 1, block(BIG)));
    const sent = peer.sent();
    expect(sent.map(({ type }) => type)).toEqual([HEADERS, FrameType.RST_STREAM]);
    expect(sent[0]!.payload.toString('latin1')).toContain('431');
    expect(sent[1]!.payload.readUInt32BE(0)).toBe(ErrorCode.NO_ERROR);
    expect(peer.recorder.of('request')).toEqual([]);
    peer.send(data(1, 'the body was under way'), headers(3, GET, true));
    expect(peer.recorder.of('request')).toHaveLength(1);
  });

  test('a response or trailers too large reset their stream', () => {
    const peer = RawPeer.client();
    peer.session.request(GET, peer.recorder, true);
    peer.output.take();
    peer.send(
      frame(
        HEADERS,
        4,
        1,
        block([
          [':status', '200'],
          ['x', 'y'.repeat(20_000)],
        ]),
      ),
    );
    expect(peer.resets()).toEqual([[1, CALM]]);
    expect(peer.recorder.of('reset')).toHaveLength(1);
    const server = RawPeer.server();
    server.send(headers(1, GET), frame(HEADERS, 5, 1, block(BIG)));
    expect(server.resets()).toEqual([[1, CALM]]);
  });

  test('table size updates without end', () => {
    const peer = RawPeer.server();
    peer.send(frame(HEADERS, 5, 1, Buffer.concat([Buffer.alloc(1000, 0x20), block(GET)])));
    expect(peer.goAwayCode()).toBe(ErrorCode.COMPRESSION_ERROR);
  });
});

describe('a peer that asks and does not read', () => {
  test.each<[string, (i: number) => Buffer]>([
    ['PING', () => PING_FRAME],
    ['requests', (i) => headers(2 * i + 1, GET, true)],
  ])('%s: what we queue for it is bounded', (_name, make) => {
    const peer = RawPeer.server({ limits: { pingFramesBurst: 1e9 } });
    peer.recorder.onRequestHook = (stream) =>
      stream.sendHeaders(
        [
          [':status', '200'],
          ['x', 'y'.repeat(100)],
        ],
        true,
      );
    peer.output.blocked = true;
    let rounds = 0;
    while (peer.recorder.of('closed').length === 0 && rounds < 1e5) peer.send(make(rounds++));
    expect(peer.recorder.of('closed')[0]!.code).toBe(CALM);
    expect(peer.output.pendingBytes).toBeLessThan(LIMITS.maxBlockedControlBytes + 1000);
  });

  test('what drained in between does not count', () => {
    const peer = RawPeer.server({ limits: { pingFramesBurst: 1e9 } });
    for (let i = 0; i < 20_000; i++) {
      peer.output.blocked = true;
      peer.send(PING_FRAME);
      peer.output.take();
      peer.output.blocked = false;
      peer.session.outputDrained();
    }
    expect(peer.recorder.of('closed')).toEqual([]);
  });

  test('a window of zero holds our data back, whatever the number of streams', () => {
    const peer = RawPeer.server();
    peer.send(settings([Setting.INITIAL_WINDOW_SIZE, 0]));
    for (let i = 0; i < 200; i++) peer.send(headers(2 * i + 1, GET));
    peer.output.take();
    for (const stream of peer.recorder.streams.values()) {
      stream.sendHeaders([[':status', '200']], false);
      expect(stream.sendData(Buffer.alloc(1000), 0, 1000, false)).toBe(0);
    }
    expect(peer.output.pendingBytes).toBeLessThan(200 * 20);
  });

  test('memory of a frame grows with what came, not with what was announced', () => {
    const peer = RawPeer.server();
    peer.send(frame(HEADERS, 4, 1, Buffer.alloc(100_000)).subarray(0, 20));
    const decoder = Reflect.get(peer.session, 'decoder') as object;
    expect((Reflect.get(decoder, 'side') as Buffer).length).toBeLessThan(1024);
  });

  test('streams that we reset are remembered up to a number', () => {
    const peer = RawPeer.server({ limits: { maxRememberedResets: 10 } });
    for (let i = 0; i < 100; i++) {
      peer.send(headers(2 * i + 1, GET));
      peer.recorder.streams.get(2 * i + 1)!.reset(ErrorCode.CANCEL);
    }
    expect((Reflect.get(peer.session, 'resets') as Map<number, number>).size).toBe(10);
    peer.send(data(199, 'late'));
    expect(peer.goAwayCode()).toBeNull();
    peer.send(data(1, 'too late'));
    expect(peer.goAwayCode()).toBe(ErrorCode.STREAM_CLOSED);
  });
});
