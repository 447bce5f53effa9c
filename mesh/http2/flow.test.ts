import { describe, expect, test } from '@jest/globals';
import { data, GET, headers, RawPeer, rstStream, settings, windowUpdate } from './testing/raw.js';
import type { Stream } from './types.js';
import { FrameType, Setting } from './wire/frame.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const OK = [[':status', '200']] as const;

/** A peer that fills every window it is given, on stream `id`, as long as `rounds` lasts; returns what it has sent. */
class Filler {
  private readonly peer: RawPeer;
  connectionCredit = 16 * MIB;
  readonly credit = new Map<number, number>();
  readonly sent = new Map<number, number>();

  constructor(peer: RawPeer) {
    this.peer = peer;
  }

  open(id: number): void {
    this.credit.set(id, 65_535);
    this.sent.set(id, 0);
    this.peer.send(headers(id, GET));
  }

  /** One round trip: takes our WINDOW_UPDATEs, sends all it may on each of `ids`. */
  round(ids: Iterable<number>): void {
    for (const { type, id, payload } of this.peer.sent()) {
      if (type !== FrameType.WINDOW_UPDATE) continue;
      const increment = payload.readUInt32BE(0);
      if (id === 0) this.connectionCredit += increment;
      else this.credit.set(id, this.credit.get(id)! + increment);
    }
    for (const id of ids) {
      for (;;) {
        const bytes = Math.min(16 * KIB, this.credit.get(id)!, this.connectionCredit);
        if (bytes === 0) break;
        this.credit.set(id, this.credit.get(id)! - bytes);
        this.connectionCredit -= bytes;
        this.sent.set(id, this.sent.get(id)! + bytes);
        this.peer.send(data(id, Buffer.alloc(bytes)));
      }
    }
  }
}

function granted(peer: RawPeer): number {
  return (Reflect.get(peer.session, 'receiveFlow') as { grantedBytes: number }).grantedBytes;
}

function fastPeer(): RawPeer {
  return RawPeer.server();
}

describe('receive windows', () => {
  test('a stream starts at 64 KiB and grows to 4 MiB while its reader keeps up', () => {
    const peer = fastPeer();
    const filler = new Filler(peer);
    filler.open(1);
    expect(granted(peer)).toBe(65_535);
    for (let i = 0; i < 60; i++) filler.round([1]);
    expect(granted(peer)).toBe(4 * MIB);
  });

  test('a reader that is slow, or a peer that is, does not make it grow', () => {
    for (const pauseMs of [50, 5000]) {
      const peer = fastPeer();
      const filler = new Filler(peer);
      filler.open(1);
      for (let i = 0; i < 60; i++) {
        peer.nowMs += pauseMs;
        filler.round([1]);
      }
      expect(granted(peer)).toBe(65_535);
      expect(filler.sent.get(1)).toBeGreaterThan(MIB);
    }
  });

  test('a reader that leaves some lying does not make it grow', () => {
    const peer = fastPeer();
    peer.recorder.consumes = false;
    let lying = 0;
    peer.recorder.onData = (stream, _bytes, start, end) => {
      lying += end - start;
      if (lying <= 10 * KIB) return;
      stream.consumed(lying - 10 * KIB);
      lying = 10 * KIB;
    };
    const filler = new Filler(peer);
    filler.open(1);
    for (let i = 0; i < 60; i++) filler.round([1]);
    expect(granted(peer)).toBe(65_535);
  });

  test('a grown window shrinks again when its reader gets slow', () => {
    const peer = fastPeer();
    const filler = new Filler(peer);
    filler.open(1);
    for (let i = 0; i < 60; i++) filler.round([1]);
    const stream = peer.recorder.streams.get(1)!;
    let waiting = 0;
    peer.recorder.onData = (_stream, _bytes, start, end) => {
      waiting += end - start;
    };
    for (let i = 0; i < 2000; i++) {
      filler.round([1]);
      peer.nowMs += 100;
      const bytes = Math.min(waiting, 16 * KIB);
      waiting -= bytes;
      stream.consumed(bytes);
    }
    expect(granted(peer)).toBeLessThan(256 * KIB);
    expect(granted(peer)).toBeGreaterThanOrEqual(65_535);
  });

  test('all granted windows together stay within the connection window, and late streams still find some', () => {
    const peer = fastPeer();
    const filler = new Filler(peer);
    const ids = Array.from({ length: 100 }, (_, i) => 2 * i + 1);
    for (const id of ids.slice(0, 10)) filler.open(id);
    for (let i = 0; i < 60; i++) filler.round(ids.slice(0, 10));
    expect(granted(peer)).toBeLessThanOrEqual(16 * MIB);
    expect(granted(peer)).toBeGreaterThan(14 * MIB);
    for (const id of ids.slice(0, 8)) peer.recorder.streams.get(id)!.reset(8);
    expect(granted(peer)).toBeLessThan(9 * MIB);
    for (const id of ids.slice(10)) filler.open(id);
    for (let i = 0; i < 60; i++) filler.round(ids.slice(8));
    expect(granted(peer)).toBeLessThanOrEqual(16 * MIB);
  });

  test('100 stalled streams hold a bounded amount, and another stream of the connection runs on', () => {
    const peer = fastPeer();
    const filler = new Filler(peer);
    const ids = Array.from({ length: 100 }, (_, i) => 2 * i + 1);
    let held = 0;
    peer.recorder.onData = (stream: Stream, _bytes, start, end) => {
      if (stream.id <= 199) held += end - start;
      else stream.consumed(end - start);
    };
    for (const id of [...ids, 201]) filler.open(id);
    for (let i = 0; i < 200; i++) filler.round([...ids, 201]);
    expect(held).toBe(100 * 65_535);
    expect(filler.sent.get(201)).toBeGreaterThan(64 * MIB);
    expect(peer.recorder.of('closed')).toEqual([]);
  });

  test('100 streams that were fast and then stall hold no more than the connection window', () => {
    const peer = fastPeer();
    const filler = new Filler(peer);
    const ids = Array.from({ length: 100 }, (_, i) => 2 * i + 1);
    for (const id of ids) filler.open(id);
    for (let i = 0; i < 30; i++) filler.round(ids);
    let held = 0;
    peer.recorder.onData = (_stream, _bytes, start, end) => {
      held += end - start;
    };
    for (let i = 0; i < 30; i++) filler.round(ids);
    expect(held).toBeGreaterThan(6 * MIB);
    expect(held).toBeLessThanOrEqual(16 * MIB);
    expect(filler.connectionCredit).toBeGreaterThan(0);
  });

  test('connection credit comes back on receipt, in halves of the window', () => {
    const peer = RawPeer.server({ connectionWindowBytes: 128 * KIB });
    peer.recorder.consumes = false;
    peer.send(headers(1, GET), headers(3, GET), data(1, Buffer.alloc(60 * KIB)));
    expect(peer.sent()).toEqual([]);
    peer.send(data(3, Buffer.alloc(4 * KIB)));
    expect(peer.sent()).toMatchObject([{ type: FrameType.WINDOW_UPDATE, id: 0 }]);
  });

  test('a smaller initial window counts from its acknowledgement on', () => {
    const peer = new RawPeer({ role: 'client', initialStreamWindowBytes: 1000 });
    peer.session.request(GET, peer.recorder, true);
    peer.send(settings(), headers(1, OK), data(1, Buffer.alloc(20_000)));
    expect(peer.recorder.of('reset')).toEqual([]);
    expect(granted(peer)).toBe(65_535);
    peer.send(Buffer.from('000000040100000000', 'hex'));
    expect(granted(peer)).toBe(1000);
    peer.session.request(GET, peer.recorder, true);
    peer.send(headers(3, OK), data(3, Buffer.alloc(1001)));
    expect(peer.recorder.of('reset')).toMatchObject([{ id: 3, code: 3 }]);
  });
});

describe('send windows', () => {
  function serve(count: number, options = {}): { peer: RawPeer; streams: Stream[] } {
    const peer = RawPeer.server(options);
    for (let i = 0; i < count; i++) peer.send(headers(2 * i + 1, GET));
    const streams = [...peer.recorder.streams.values()];
    for (const stream of streams) stream.sendHeaders(OK, false);
    peer.output.take();
    return { peer, streams };
  }
  const body = Buffer.alloc(MIB);
  const dataOf = (peer: RawPeer) =>
    peer
      .sent()
      .filter(({ type }) => type === FrameType.DATA)
      .map(({ id, payload }): [number, number] => [id, payload.length]);

  test('frames stay within stream window, connection window and the frame size of the peer', () => {
    const { peer, streams } = serve(1);
    while (streams[0]!.sendCapacity() > 0) streams[0]!.sendData(body, 0, body.length, false);
    const sent = dataOf(peer);
    expect(sent.every(([, length]) => length <= 16_384)).toBe(true);
    expect(sent.reduce((sum, [, length]) => sum + length, 0)).toBe(65_535);
    peer.send(
      settings([Setting.MAX_FRAME_SIZE, 1_000_000], [Setting.INITIAL_WINDOW_SIZE, 1_000_000]),
      windowUpdate(0, 500_000),
    );
    expect(streams[0]!.sendCapacity()).toBe(64 * KIB);
    streams[0]!.sendData(body, 0, body.length, false);
    expect(dataOf(peer)).toEqual([[1, 64 * KIB]]);
  });

  test('a lowered INITIAL_WINDOW_SIZE makes windows negative, and they recover', () => {
    const { peer, streams } = serve(1);
    streams[0]!.sendData(body, 0, 10_000, false);
    peer.send(settings([Setting.INITIAL_WINDOW_SIZE, 4_000]));
    expect(streams[0]!.sendCapacity()).toBe(0);
    peer.send(windowUpdate(1, 6_000));
    expect(peer.recorder.of('writable')).toEqual([]);
    peer.send(windowUpdate(1, 5));
    expect(peer.recorder.of('writable')).toHaveLength(1);
    expect(streams[0]!.sendCapacity()).toBe(5);
  });

  test('onWritable comes once for each time the capacity was asked for and 0', () => {
    const { peer, streams } = serve(1);
    while (streams[0]!.sendCapacity() > 0) streams[0]!.sendData(body, 0, body.length, false);
    streams[0]!.sendCapacity();
    peer.send(windowUpdate(1, 10));
    expect(peer.recorder.of('writable')).toEqual([]); // the connection window is empty too
    peer.send(windowUpdate(0, 10));
    expect(peer.recorder.of('writable')).toHaveLength(1);
    peer.send(windowUpdate(0, 10), windowUpdate(1, 10));
    expect(peer.recorder.of('writable')).toHaveLength(1);
  });

  test('streams share a scarce connection window round robin', () => {
    const { peer, streams } = serve(5);
    const sender = (stream: Stream) => {
      stream.sendData(body, 0, 1000, false);
      stream.sendCapacity();
    };
    peer.recorder.onWritable = sender;
    while (streams[0]!.sendCapacity() > 0) streams[0]!.sendData(body, 0, body.length, false);
    peer.send(windowUpdate(1, 1_000_000));
    for (const stream of streams) expect(stream.sendCapacity()).toBe(0);
    peer.output.take();
    for (let i = 0; i < 50; i++) peer.send(windowUpdate(0, 1000));
    const perStream = new Map<number, number>();
    for (const [id, length] of dataOf(peer)) perStream.set(id, (perStream.get(id) ?? 0) + length);
    expect([...perStream.values()]).toEqual([10_000, 10_000, 10_000, 10_000, 10_000]);
  });

  test('a blocked output stops all, and draining wakes them in turn until it blocks again', () => {
    const { peer, streams } = serve(4);
    peer.output.blocked = true;
    for (const stream of streams) expect(stream.sendCapacity()).toBe(0);
    const order: number[] = [];
    peer.recorder.onWritable = (stream) => {
      while (stream.sendCapacity() > 0) {
        order.push(stream.id);
        stream.sendData(body, 0, 100, false);
        if (order.length % 2 === 0) peer.output.blocked = true;
      }
    };
    for (let i = 0; i < 5; i++) {
      peer.output.blocked = false;
      peer.session.outputDrained();
    }
    expect(order).toEqual([1, 1, 3, 3, 5, 5, 7, 7, 1, 1]);
  });

  test('a stream that is gone is not woken', () => {
    const { peer, streams } = serve(2);
    peer.output.blocked = true;
    for (const stream of streams) stream.sendCapacity();
    streams[0]!.reset(8);
    peer.output.blocked = false;
    peer.session.outputDrained();
    expect(peer.recorder.of('writable').map(({ id }) => id)).toEqual([3]);
  });

  test('streams that are gone do not lie in the queue, however many a peer without a window resets', () => {
    const { peer, streams } = serve(1);
    while (streams[0]!.sendCapacity() > 0) streams[0]!.sendData(body, 0, body.length, false);
    const queue = Reflect.get(peer.session, 'sendFlow') as { readonly waiting: number };
    for (let id = 3; id < 2003; id += 2) {
      peer.send(headers(id, GET));
      const stream = peer.recorder.streams.get(id)!;
      stream.sendHeaders(OK, false);
      expect(stream.sendCapacity()).toBe(0);
      peer.send(rstStream(id, 8));
    }
    expect(queue.waiting).toBeLessThanOrEqual(1);
  });

  test('a stream whose turn it is may reset those that wait behind it', () => {
    const { peer, streams } = serve(4);
    peer.output.blocked = true;
    for (const stream of streams) stream.sendCapacity();
    const woken: number[] = [];
    peer.recorder.onWritable = (stream) => {
      woken.push(stream.id);
      for (const other of streams) if (other !== stream) other.reset(8);
    };
    peer.output.blocked = false;
    peer.session.outputDrained();
    expect(woken).toEqual([1]);
  });

  test('END_STREAM and a frame not wanted need no window', () => {
    const { peer, streams } = serve(1);
    while (streams[0]!.sendCapacity() > 0) streams[0]!.sendData(body, 0, body.length, false);
    peer.output.take();
    streams[0]!.beginData(0);
    streams[0]!.commitData(0, false);
    expect(peer.sent()).toEqual([]);
    streams[0]!.endStream();
    expect(peer.sent()).toMatchObject([{ type: FrameType.DATA, flags: 1, id: 1 }]);
  });

  test('headers above 16 KiB go out as HEADERS and CONTINUATION', () => {
    const peer = RawPeer.client();
    peer.session.request([...GET, ['x', 'y'.repeat(40_000)]], peer.recorder, true);
    const sent = peer.sent();
    expect(sent.map(({ type, flags }) => [type, flags])).toEqual([
      [FrameType.HEADERS, 1],
      [FrameType.CONTINUATION, 0],
      [FrameType.CONTINUATION, 4],
    ]);
  });
});
