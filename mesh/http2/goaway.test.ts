import { describe, expect, test } from '@jest/globals';
import { data, frame, GET, headers, RawPeer, uint32 } from './testing/raw.js';
import { ErrorCode } from './types.js';
import { FrameType } from './wire/frame.js';

const { GOAWAY, PING } = FrameType;

function goAways(peer: RawPeer): number[][] {
  const frames = peer.sent();
  return frames
    .filter(({ type }) => type === GOAWAY || type === PING)
    .map(({ type, payload }) => (type === PING ? [] : [payload.readUInt32BE(0), payload.readUInt32BE(4)]));
}

describe('GOAWAY', () => {
  test('a server announces, waits for a round trip, then names its last stream', () => {
    const peer = RawPeer.server();
    peer.send(headers(1, GET));
    peer.session.goAway(ErrorCode.NO_ERROR);
    expect(peer.session.acceptsStreams).toBe(false);
    const sent = peer.sent();
    expect(sent.map(({ type }) => type)).toEqual([GOAWAY, PING]);
    expect(sent[0]!.payload.readUInt32BE(0)).toBe(0x7fffffff);
    // a request that crossed the GOAWAY is still served
    peer.send(headers(3, GET), frame(PING, 1, 0, Buffer.from(sent[1]!.payload)));
    expect(goAways(peer)).toEqual([[3, ErrorCode.NO_ERROR]]);
    // a later one is ignored, with its body and without harm
    peer.send(headers(5, GET), data(5, 'x', true));
    expect(peer.recorder.of('request').map(({ id }) => id)).toEqual([1, 3]);
    expect(peer.recorder.of('drained')).toEqual([]);
    for (const stream of peer.recorder.streams.values()) stream.reset(ErrorCode.CANCEL);
    expect(peer.recorder.of('drained')).toHaveLength(1);
  });

  test('with nothing open a server is drained after the round trip, not before', () => {
    const peer = RawPeer.server();
    peer.session.goAway(ErrorCode.NO_ERROR);
    const ping = peer.sent()[1]!;
    expect(peer.recorder.of('drained')).toEqual([]);
    peer.send(frame(PING, 1, 0, Buffer.from(ping.payload)));
    expect(peer.recorder.of('drained')).toHaveLength(1);
  });

  test('a client says it at once; drained when its streams have ended', () => {
    const peer = RawPeer.client();
    const stream = peer.session.request(GET, peer.recorder, false);
    peer.output.take();
    peer.session.goAway(ErrorCode.NO_ERROR);
    peer.session.goAway(ErrorCode.NO_ERROR);
    expect(goAways(peer)).toEqual([[0, ErrorCode.NO_ERROR]]);
    expect(() => peer.session.request(GET, peer.recorder, true)).toThrow('no new streams');
    stream.endStream();
    peer.send(headers(1, [[':status', '200']], true));
    expect(peer.recorder.events.slice(-2).map(({ type }) => type)).toEqual(['end', 'drained']);
  });

  test('received: streams above the last are refused, safe to retry; the others go on', () => {
    const peer = RawPeer.client();
    for (let i = 0; i < 3; i++) peer.session.request(GET, peer.recorder, true);
    peer.send(frame(GOAWAY, 0, 0, uint32(0x7fffffff, 0)));
    expect(peer.recorder.of('reset')).toEqual([]);
    expect(peer.session.acceptsStreams).toBe(false);
    peer.send(frame(GOAWAY, 0, 0, uint32(3, 0)));
    expect(peer.recorder.of('reset')).toEqual([
      { type: 'reset', id: 5, code: ErrorCode.REFUSED_STREAM, sessionLost: false },
    ]);
    expect(peer.recorder.of('goaway').map(({ lastStreamId }) => lastStreamId)).toEqual([0x7fffffff, 3]);
    peer.send(headers(1, [[':status', '200']], true), headers(3, [[':status', '200']], true));
    expect(peer.recorder.of('end').map(({ id }) => id)).toEqual([1, 3]);
    expect(peer.recorder.of('drained')).toHaveLength(1);
  });

  test('destroy: GOAWAY with code and reason, every stream is lost, one onClosed, then silence', () => {
    const peer = RawPeer.server();
    peer.send(headers(1, GET), headers(3, GET));
    peer.output.take();
    peer.session.destroy(ErrorCode.SETTINGS_TIMEOUT, 'no ACK');
    const [goAway] = peer.sent();
    expect([goAway!.payload.readUInt32BE(0), goAway!.payload.readUInt32BE(4)]).toEqual([
      3,
      ErrorCode.SETTINGS_TIMEOUT,
    ]);
    expect(goAway!.payload.toString('latin1', 8)).toBe('no ACK');
    expect(peer.recorder.of('reset').map(({ id, sessionLost }) => [id, sessionLost])).toEqual([
      [1, true],
      [3, true],
    ]);
    expect(peer.recorder.of('closed')).toHaveLength(1);
    for (const stream of peer.recorder.streams.values()) {
      stream.sendHeaders([[':status', '200']], true);
      stream.endStream();
      stream.reset(ErrorCode.CANCEL);
      stream.consumed(1000);
      expect(stream.sendCapacity()).toBe(0);
      expect(stream.isOpen).toBe(false);
    }
    peer.session.ping(() => {});
    peer.session.goAway(ErrorCode.NO_ERROR);
    peer.session.destroy(ErrorCode.NO_ERROR, '');
    peer.session.transportClosed();
    peer.session.outputDrained();
    expect(peer.sent()).toEqual([]);
    expect(peer.recorder.of('closed')).toHaveLength(1);
    expect(peer.recorder.of('drained')).toHaveLength(0);
  });

  test('a lost transport: every stream hears a reset, there is no onClosed', () => {
    const peer = RawPeer.client();
    peer.session.request(GET, peer.recorder, true);
    peer.session.transportClosed();
    expect(peer.recorder.of('reset')).toMatchObject([{ id: 1, sessionLost: true }]);
    expect(peer.recorder.of('closed')).toEqual([]);
    expect(peer.session.acceptsStreams).toBe(false);
  });

  test('identifiers run out', () => {
    const peer = RawPeer.client();
    Reflect.set(peer.session, 'nextStreamId', 0x7fffffff);
    peer.session.request(GET, peer.recorder, true);
    expect(peer.session.acceptsStreams).toBe(false);
    expect(() => peer.session.request(GET, peer.recorder, true)).toThrow('no new streams');
  });
});

describe('PING', () => {
  test('gives the round trip to each of several', () => {
    const peer = RawPeer.client();
    const seen: number[] = [];
    peer.session.ping((ms) => seen.push(ms));
    peer.nowMs += 5;
    peer.session.ping((ms) => seen.push(ms));
    const pings = peer.sent().map(({ payload }) => frame(PING, 1, 0, Buffer.from(payload)));
    peer.nowMs += 10;
    peer.send(...pings, ...pings);
    expect(seen).toEqual([15, 10]);
  });

  test('is answered with its own payload', () => {
    const peer = RawPeer.server();
    peer.send(frame(PING, 0, 0, '0102030405060708'));
    expect(peer.sent()).toMatchObject([
      { type: PING, flags: 1, payload: Buffer.from('0102030405060708', 'hex') },
    ]);
  });
});

describe('the callbacks may do anything', () => {
  test('destroy, reset or end in the middle of a chunk', () => {
    const chunk = [headers(1, GET), data(1, 'abc'), headers(3, GET), data(3, 'def', true)];
    const destroying = RawPeer.server();
    destroying.recorder.onData = () => destroying.session.destroy(ErrorCode.NO_ERROR, 'enough');
    destroying.send(...chunk);
    expect(destroying.recorder.of('request')).toHaveLength(1);
    const resetting = RawPeer.server();
    resetting.recorder.onData = (stream) => stream.reset(ErrorCode.CANCEL);
    resetting.send(...chunk);
    expect(resetting.recorder.of('request')).toHaveLength(2);
    expect(resetting.recorder.of('end')).toEqual([]);
    const closing = RawPeer.server();
    closing.recorder.onRequestHook = () => closing.session.transportClosed();
    closing.send(...chunk);
    expect(closing.recorder.of('request')).toHaveLength(1);
  });

  test('an exception of theirs ends the session and comes out of receive', () => {
    const peer = RawPeer.server();
    peer.recorder.onData = () => {
      throw new TypeError('owner bug');
    };
    expect(() => peer.send(headers(1, GET), data(1, 'x'))).toThrow('owner bug');
    expect(peer.goAwayCode()).toBe(ErrorCode.INTERNAL_ERROR);
  });

  test('a refused request', () => {
    const peer = RawPeer.server();
    peer.recorder.acceptsRequests = false;
    peer.send(headers(1, GET, true));
    expect(peer.resets()).toEqual([[1, ErrorCode.REFUSED_STREAM]]);
    expect(peer.recorder.of('reset')).toEqual([]);
    expect(peer.session.openStreams).toBe(0);
  });
});

describe('what the owner may not do', () => {
  test('send malformed headers', () => {
    const client = RawPeer.client();
    expect(() => client.session.request([...GET, ['x', 'a\r\nb']], client.recorder, true)).toThrow(
      'bad characters',
    );
    expect(() => client.session.request([...GET, ['x', '\u20ac']], client.recorder, true)).toThrow(
      'bad characters',
    );
    expect(client.session.openStreams).toBe(0);
    const server = RawPeer.server();
    server.send(headers(1, GET));
    const stream = server.recorder.streams.get(1)!;
    expect(() => stream.sendHeaders([['x', 'y']], false)).toThrow(':status');
    expect(() => stream.sendHeaders([[':status', '100']], true)).toThrow('1xx');
    expect(stream.sendCapacity()).toBe(0);
    stream.sendHeaders([[':status', '200']], false);
    expect(() => stream.sendHeaders([['x', 'y']], false)).toThrow('trailers end the stream');
    expect(() => stream.beginData(1_000_000)).toThrow(RangeError);
  });

  test('open more streams than the peer allows', () => {
    const peer = RawPeer.client();
    peer.send(frame(FrameType.SETTINGS, 0, 0, '000300000001'));
    peer.session.request(GET, peer.recorder, true);
    expect(() => peer.session.request(GET, peer.recorder, true)).toThrow('the peer allows 1 streams');
  });

  test.each([
    ['maxFrameBytes', 100],
    ['connectionWindowBytes', 1000],
    ['initialStreamWindowBytes', 2 ** 31],
    ['maxSendFrameBytes', Number.NaN],
  ])('give %s as %d', (name, value) => {
    expect(() => RawPeer.server({ [name]: value })).toThrow(name);
  });
});
