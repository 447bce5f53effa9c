// Longer than 400 lines: one list of everything that RFC 9113 forbids, in its order.
import { describe, expect, test } from '@jest/globals';
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
import { ErrorCode, type HeaderList } from './types.js';
import { CLIENT_PREFACE, FrameType, Setting } from './wire/frame.js';

const { PROTOCOL_ERROR, FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, COMPRESSION_ERROR } = ErrorCode;
const {
  DATA,
  HEADERS,
  PRIORITY,
  RST_STREAM,
  SETTINGS,
  PUSH_PROMISE,
  PING,
  GOAWAY,
  WINDOW_UPDATE,
  CONTINUATION,
} = FrameType;
const OPEN = headers(1, GET);
const OPEN_ENDED = headers(1, GET, true);
const PADDED = 8;

describe('connection errors of a client (RFC 9113)', () => {
  test.each<[string, Buffer[], number]>([
    [
      '4.2 frame above SETTINGS_MAX_FRAME_SIZE',
      [frame(DATA, 0, 1, Buffer.alloc(1024 * 1024 + 1))],
      FRAME_SIZE_ERROR,
    ],
    ['4.3 broken field block', [frame(HEADERS, 4, 1, 'ff')], COMPRESSION_ERROR],
    [
      '4.3 frame within a field block',
      [frame(HEADERS, 0, 1, block(GET)), frame(PING, 0, 0, Buffer.alloc(8))],
      PROTOCOL_ERROR,
    ],
    [
      '4.3 unknown frame within a field block',
      [frame(HEADERS, 0, 1, block(GET)), frame(0x40, 0, 0)],
      PROTOCOL_ERROR,
    ],
    ['4.3 DATA within a field block', [OPEN, frame(HEADERS, 0, 3, block(GET)), data(1, 'x')], PROTOCOL_ERROR],
    ['5.1 DATA on an idle stream', [data(1, 'x')], PROTOCOL_ERROR],
    ['5.1 RST_STREAM on an idle stream', [rstStream(1, 8)], PROTOCOL_ERROR],
    ['5.1 WINDOW_UPDATE on an idle stream', [windowUpdate(1, 1)], PROTOCOL_ERROR],
    [
      '5.1 DATA on a stream that was reset by its sender',
      [OPEN, rstStream(1, 8), data(1, 'x')],
      STREAM_CLOSED,
    ],
    ['5.1 HEADERS on a stream that was reset by its sender', [OPEN, rstStream(1, 8), OPEN], STREAM_CLOSED],
    ['5.1.1 even stream', [headers(2, GET)], PROTOCOL_ERROR],
    ['5.1.1 stream identifier that went down', [headers(5, GET, true), headers(3, GET)], STREAM_CLOSED],
    ['6.1 DATA on stream 0', [data(0, 'x')], PROTOCOL_ERROR],
    [
      '6.1 padding as long as the frame',
      [OPEN, frame(DATA, PADDED, 1, '0361626300'.slice(0, 6))],
      PROTOCOL_ERROR,
    ],
    ['6.1 padded DATA without pad length', [OPEN, frame(DATA, PADDED, 1)], FRAME_SIZE_ERROR],
    ['6.2 HEADERS on stream 0', [headers(0, GET)], PROTOCOL_ERROR],
    ['6.2 HEADERS padding too long', [frame(HEADERS, 4 | PADDED, 1, '0282')], PROTOCOL_ERROR],
    ['6.2 HEADERS too short for its priority', [frame(HEADERS, 4 | 0x20, 1, '00000000')], FRAME_SIZE_ERROR],
    ['6.2 padded HEADERS without pad length', [frame(HEADERS, 4 | PADDED, 1)], FRAME_SIZE_ERROR],
    ['6.3 PRIORITY on stream 0', [frame(PRIORITY, 0, 0, '0000000001')], PROTOCOL_ERROR],
    ['6.3 PRIORITY of 4 bytes on an idle stream', [frame(PRIORITY, 0, 1, '00000000')], FRAME_SIZE_ERROR],
    ['6.4 RST_STREAM on stream 0', [rstStream(0, 8)], PROTOCOL_ERROR],
    ['6.4 RST_STREAM of 3 bytes', [OPEN, frame(RST_STREAM, 0, 1, '000000')], FRAME_SIZE_ERROR],
    ['6.5 SETTINGS on a stream', [frame(SETTINGS, 0, 1)], PROTOCOL_ERROR],
    ['6.5 SETTINGS of 5 bytes', [frame(SETTINGS, 0, 0, '0001000000')], FRAME_SIZE_ERROR],
    ['6.5 SETTINGS ACK with payload', [frame(SETTINGS, 1, 0, '000100000000')], FRAME_SIZE_ERROR],
    ['6.5.2 ENABLE_PUSH of 2', [settings([Setting.ENABLE_PUSH, 2])], PROTOCOL_ERROR],
    [
      '6.5.2 INITIAL_WINDOW_SIZE of 2^31',
      [settings([Setting.INITIAL_WINDOW_SIZE, 2 ** 31])],
      FLOW_CONTROL_ERROR,
    ],
    ['6.5.2 MAX_FRAME_SIZE of 16383', [settings([Setting.MAX_FRAME_SIZE, 16383])], PROTOCOL_ERROR],
    ['6.5.2 MAX_FRAME_SIZE of 2^24', [settings([Setting.MAX_FRAME_SIZE, 2 ** 24])], PROTOCOL_ERROR],
    ['8441 ENABLE_CONNECT_PROTOCOL of 2', [settings([Setting.ENABLE_CONNECT_PROTOCOL, 2])], PROTOCOL_ERROR],
    ['6.6 PUSH_PROMISE', [OPEN, frame(PUSH_PROMISE, 4, 1, '0000000282')], PROTOCOL_ERROR],
    ['6.7 PING on a stream', [frame(PING, 0, 1, Buffer.alloc(8))], PROTOCOL_ERROR],
    ['6.7 PING of 7 bytes', [frame(PING, 0, 0, Buffer.alloc(7))], FRAME_SIZE_ERROR],
    ['6.8 GOAWAY on a stream', [frame(GOAWAY, 0, 1, Buffer.alloc(8))], PROTOCOL_ERROR],
    ['6.8 GOAWAY of 7 bytes', [frame(GOAWAY, 0, 0, Buffer.alloc(7))], FRAME_SIZE_ERROR],
    ['6.9 WINDOW_UPDATE of 3 bytes', [frame(WINDOW_UPDATE, 0, 0, '000001')], FRAME_SIZE_ERROR],
    ['6.9 connection WINDOW_UPDATE by 0', [windowUpdate(0, 0)], PROTOCOL_ERROR],
    ['6.9.1 connection window above 2^31-1', [windowUpdate(0, 0x7fffffff)], FLOW_CONTROL_ERROR],
    [
      '6.9.2 INITIAL_WINDOW_SIZE lifts a stream above 2^31-1',
      [OPEN, windowUpdate(1, 100_000), settings([Setting.INITIAL_WINDOW_SIZE, 0x7fffffff])],
      FLOW_CONTROL_ERROR,
    ],
    ['6.10 CONTINUATION of nothing', [frame(CONTINUATION, 4, 1, '82')], PROTOCOL_ERROR],
    ['6.10 CONTINUATION after END_HEADERS', [OPEN, frame(CONTINUATION, 4, 1, '82')], PROTOCOL_ERROR],
    [
      '6.10 CONTINUATION of another stream',
      [frame(HEADERS, 0, 1, block(GET)), frame(CONTINUATION, 4, 3, '')],
      PROTOCOL_ERROR,
    ],
  ])('%s', (_name, frames, code) => {
    const peer = RawPeer.server();
    peer.send(...frames);
    expect(peer.goAwayCode()).toBe(code);
    expect(peer.recorder.events.at(-1)).toMatchObject({ type: 'closed', code });
    // nothing is heard, and nothing said, after it
    const events = peer.recorder.events.length;
    peer.send(headers(99, GET), frame(PING, 0, 0, Buffer.alloc(8)));
    expect(peer.recorder.events.length).toBe(events);
    expect(peer.sent()).toEqual([]);
  });

  test('6.9.1 DATA beyond the connection window', () => {
    const peer = RawPeer.server({ connectionWindowBytes: 65_535, initialStreamWindowBytes: 100_000 });
    peer.send(OPEN, headers(3, GET), data(1, Buffer.alloc(60_000)), data(3, Buffer.alloc(10_000)));
    expect(peer.goAwayCode()).toBeNull(); // half was returned on receipt
    peer.send(data(1, Buffer.alloc(66_000)));
    expect(peer.goAwayCode()).toBe(FLOW_CONTROL_ERROR);
  });

  test('3.4 no preface', () => {
    const peer = new RawPeer({ role: 'server' });
    peer.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
    expect(peer.goAwayCode()).toBe(PROTOCOL_ERROR);
  });

  test.each<[string, Buffer]>([
    ['HEADERS', OPEN],
    ['PING', frame(PING, 0, 0, Buffer.alloc(8))],
    ['SETTINGS ACK', SETTINGS_ACK],
    ['an unknown frame', frame(0x40, 0, 0)],
  ])('3.4 first frame is %s', (_name, first) => {
    const peer = new RawPeer({ role: 'server' });
    peer.send(CLIENT_PREFACE, first);
    expect(peer.goAwayCode()).toBe(PROTOCOL_ERROR);
  });
});

describe('connection errors of a server', () => {
  const RESPONSE = headers(1, [[':status', '200']]);
  test.each<[string, Buffer[], number]>([
    ['PUSH_PROMISE', [frame(PUSH_PROMISE, 4, 1, '0000000282')], PROTOCOL_ERROR],
    ['HEADERS on an idle stream', [headers(3, [[':status', '200']])], PROTOCOL_ERROR],
    ['HEADERS on an even stream', [headers(2, [[':status', '200']])], PROTOCOL_ERROR],
    ['ENABLE_PUSH of 1', [settings([Setting.ENABLE_PUSH, 1])], PROTOCOL_ERROR],
    ['ENABLE_CONNECT_PROTOCOL taken back', [settings([8, 1]), settings([8, 0])], PROTOCOL_ERROR],
    [
      'GOAWAY that raises its last stream',
      [frame(GOAWAY, 0, 0, uint32(1, 0)), frame(GOAWAY, 0, 0, uint32(3, 0))],
      PROTOCOL_ERROR,
    ],
    ['DATA after END_STREAM of both', [headers(1, [[':status', '200']], true), data(1, 'x')], STREAM_CLOSED],
    ['DATA after RST_STREAM', [RESPONSE, rstStream(1, 8), data(1, 'x')], STREAM_CLOSED],
  ])('%s', (_name, frames, code) => {
    const peer = RawPeer.client();
    peer.session.request(GET, peer.recorder, true);
    peer.send(...frames);
    expect(peer.goAwayCode()).toBe(code);
  });
});

describe('stream errors reset the stream and leave the rest alone', () => {
  const withLength = (length: string): HeaderList => [...GET, ['content-length', length]];
  test.each<[string, Buffer[], number]>([
    ['5.1 DATA after END_STREAM', [OPEN_ENDED, data(1, 'x')], STREAM_CLOSED],
    ['5.1 HEADERS after END_STREAM', [OPEN_ENDED, headers(1, [['x', 'y']], true)], STREAM_CLOSED],
    ['6.3 PRIORITY of 6 bytes', [OPEN, frame(PRIORITY, 0, 1, '000000000000')], FRAME_SIZE_ERROR],
    ['6.9 WINDOW_UPDATE by 0', [OPEN, windowUpdate(1, 0)], PROTOCOL_ERROR],
    ['6.9.1 window above 2^31-1', [OPEN, windowUpdate(1, 0x7fffffff)], FLOW_CONTROL_ERROR],
    ['6.9.1 DATA beyond the stream window', [OPEN, data(1, Buffer.alloc(65_536))], FLOW_CONTROL_ERROR],
    ['8.1 trailers without END_STREAM', [OPEN, headers(1, [['x', 'y']])], PROTOCOL_ERROR],
    ['8.1 pseudo-header in trailers', [OPEN, headers(1, [[':path', '/']], true)], PROTOCOL_ERROR],
    ['8.1.1 less content than announced', [headers(1, withLength('3')), data(1, 'ab', true)], PROTOCOL_ERROR],
    ['8.1.1 more content than announced', [headers(1, withLength('3')), data(1, 'abcd')], PROTOCOL_ERROR],
    ['8.1.1 content announced, none sent', [headers(1, withLength('3'), true)], PROTOCOL_ERROR],
    [
      '8.1.1 less content, then trailers',
      [headers(1, withLength('3')), headers(1, [['x', 'y']], true)],
      PROTOCOL_ERROR,
    ],
    [
      '8.5 HEADERS on a connected stream',
      [
        headers(1, [
          [':method', 'CONNECT'],
          [':authority', 'a:1'],
        ]),
        headers(1, [], true),
      ],
      PROTOCOL_ERROR,
    ],
  ])('%s', (_name, frames, code) => {
    const peer = RawPeer.server();
    peer.recorder.consumes = false;
    peer.send(...frames);
    expect(peer.resets()).toEqual([[1, code]]);
    expect(peer.recorder.of('end').length).toBeLessThan(2);
    peer.send(headers(3, GET, true));
    expect(peer.recorder.of('request').at(-1)!.id).toBe(3);
    expect(peer.recorder.of('closed')).toEqual([]);
  });

  const requests: [string, HeaderList][] = [
    ['no :method', GET.slice(1)],
    ['no :scheme', GET.filter(([name]) => name !== ':scheme')],
    ['no :path', GET.slice(0, 3)],
    ['empty :path', [...GET.slice(0, 3), [':path', '']]],
    [':path without slash', [...GET.slice(0, 3), [':path', 'x']]],
    ['blank in :path', [...GET.slice(0, 3), [':path', '/a HTTP/1.1']]],
    ['tab in :authority', [...GET.filter(([name]) => name !== ':authority'), [':authority', 'a\tb']]],
    ['no :authority and no host', GET.filter(([name]) => name !== ':authority')],
    ['* for GET', [...GET.slice(0, 3), [':path', '*']]],
    [
      'userinfo in :authority',
      [...GET.filter(([name]) => name !== ':authority'), [':authority', 'me@example']],
    ],
    [':status in a request', [[':status', '200'], ...GET]],
    ['unknown pseudo-header', [[':x', 'y'], ...GET]],
    [':path twice', [...GET, [':path', '/']]],
    ['pseudo-header after a field', [['a', 'b'], ...GET]],
    ['upper case', [...GET, ['X-A', 'b']]],
    ['blank in a name', [...GET, ['x a', 'b']]],
    ['empty name', [...GET, ['', 'b']]],
    ['colon in a name', [...GET, ['x:a', 'b']]],
    ['octet above 0x7f in a name', [...GET, ['x\xe4', 'b']]],
    ['NUL in a value', [...GET, ['x', 'a\0b']]],
    ['CR in a value', [...GET, ['x', 'a\rb']]],
    ['LF in a value', [...GET, ['x', 'a\nb']]],
    ['blank before a value', [...GET, ['x', ' a']]],
    ['tab after a value', [...GET, ['x', 'a\t']]],
    ['connection', [...GET, ['connection', 'close']]],
    ['proxy-connection', [...GET, ['proxy-connection', 'close']]],
    ['keep-alive', [...GET, ['keep-alive', '1']]],
    ['transfer-encoding', [...GET, ['transfer-encoding', 'chunked']]],
    ['upgrade', [...GET, ['upgrade', 'websocket']]],
    ['te other than trailers', [...GET, ['te', 'gzip']]],
    ['content-length not a number', [...GET, ['content-length', '+3']]],
    ['two content-lengths', [...GET, ['content-length', '3'], ['content-length', '4']]],
    ['host that differs', [...GET, ['host', 'other']]],
    ['method not a token', [[':method', 'G T'], ...GET.slice(1)]],
    [
      'CONNECT with :path',
      [
        [':method', 'CONNECT'],
        [':authority', 'a:1'],
        [':path', '/'],
      ],
    ],
    [
      'CONNECT with :scheme',
      [
        [':method', 'CONNECT'],
        [':authority', 'a:1'],
        [':scheme', 'https'],
      ],
    ],
    ['CONNECT without :authority', [[':method', 'CONNECT']]],
    [':protocol, not agreed', [[':method', 'CONNECT'], [':protocol', 'websocket'], ...GET.slice(1)]],
    ['no headers at all', []],
  ];
  test.each(requests)('malformed request: %s', (_name, list) => {
    const peer = RawPeer.server();
    peer.send(headers(1, list));
    expect(peer.resets()).toEqual([[1, PROTOCOL_ERROR]]);
    expect(peer.recorder.of('request')).toEqual([]);
  });

  test.each<[string, HeaderList, boolean]>([
    ['no :status', [['x', 'y']], false],
    [':status of two digits', [[':status', '20']], false],
    [':status of 600', [[':status', '600']], false],
    [
      ':path in a response',
      [
        [':status', '200'],
        [':path', '/'],
      ],
      false,
    ],
    ['101', [[':status', '101']], false],
    ['1xx that ends the stream', [[':status', '103']], true],
    [
      'content-length, then nothing',
      [
        [':status', '200'],
        ['content-length', '3'],
      ],
      true,
    ],
  ])('malformed response: %s', (_name, list, endStream) => {
    const peer = RawPeer.client();
    peer.session.request(GET, peer.recorder, true);
    peer.output.take();
    peer.send(headers(1, list, endStream));
    expect(peer.resets()).toEqual([[1, PROTOCOL_ERROR]]);
    expect(peer.recorder.events.at(-1)).toEqual({
      type: 'reset',
      id: 1,
      code: PROTOCOL_ERROR,
      sessionLost: false,
    });
  });

  test('DATA before the response headers', () => {
    const peer = RawPeer.client();
    peer.session.request(GET, peer.recorder, true);
    peer.output.take();
    peer.send(data(1, 'x'));
    expect(peer.resets()).toEqual([[1, PROTOCOL_ERROR]]);
  });
});

describe('what is allowed', () => {
  test('frames on a stream that we reset are dropped, their compression state is kept', () => {
    const peer = RawPeer.server();
    peer.send(OPEN);
    peer.recorder.streams.get(1)!.reset(ErrorCode.CANCEL);
    peer.send(
      data(1, Buffer.alloc(1000)),
      frame(HEADERS, 5, 1, '40016101' + '62'),
      windowUpdate(1, 5),
      rstStream(1, 0),
    );
    peer.send(frame(HEADERS, 5, 3, Buffer.concat([block(GET), Buffer.from('be', 'hex')])));
    expect(peer.recorder.of('request')[1]!.headers.at(-1)).toEqual(['a', 'b']);
    expect(peer.goAwayCode()).toBeNull();
  });

  test('late DATA on a stream that we reset stays bound to its window', () => {
    const peer = RawPeer.server();
    peer.send(OPEN);
    peer.recorder.streams.get(1)!.reset(ErrorCode.CANCEL);
    peer.send(data(1, Buffer.alloc(65_000)));
    expect(peer.goAwayCode()).toBeNull();
    peer.send(data(1, Buffer.alloc(536)));
    expect(peer.goAwayCode()).toBe(FLOW_CONTROL_ERROR);
  });

  test('padding, priority, reserved bits, unknown frames and flags, unknown settings', () => {
    const peer = RawPeer.server();
    const request = Buffer.concat([Buffer.from('02' + '80000003ff', 'hex'), block(GET), Buffer.alloc(2)]);
    peer.send(
      settings([0x1a2a, 5]),
      frame(HEADERS, 4 | PADDED | 0x20 | 0x40, 0x80000001, request),
      frame(0x77, 0xff, 5, 'abcd'),
      frame(DATA, PADDED, 1, '03616263000000'),
      frame(DATA, PADDED, 1, '0000'.slice(0, 2)),
      frame(PRIORITY, 0, 9, '0000000001'),
      frame(DATA, PADDED | 1, 1, '0164' + '00'),
    );
    expect(peer.recorder.of('data').map(({ text }) => text)).toEqual(['abcd']);
    expect(peer.recorder.of('end')).toHaveLength(1);
    expect(peer.goAwayCode()).toBeNull();
  });

  test('padding alone returns to the stream window', () => {
    const peer = RawPeer.server();
    peer.recorder.consumes = false;
    peer.send(OPEN);
    const padding = frame(DATA, PADDED, 1, Buffer.concat([Buffer.from([255]), Buffer.alloc(255)]));
    for (let i = 0; i < 2000; i++) peer.send(padding);
    expect(peer.goAwayCode()).toBeNull();
    expect(peer.session.openStreams).toBe(1);
  });

  test('HEAD, 204 and 304 announce a length without content; CONNECT has none', () => {
    const peer = RawPeer.client();
    const length: HeaderList[number] = ['content-length', '5'];
    peer.session.request([[':method', 'HEAD'], ...GET.slice(1)], peer.recorder, true);
    peer.session.request(GET, peer.recorder, true);
    peer.session.request(
      [
        [':method', 'CONNECT'],
        [':authority', 'a:1'],
      ],
      peer.recorder,
      false,
    );
    peer.send(headers(1, [[':status', '200'], length], true), headers(3, [[':status', '304'], length], true));
    peer.send(headers(5, [[':status', '200'], length]), data(5, 'any number', true));
    expect(peer.recorder.of('end').map(({ id }) => id)).toEqual([1, 3, 5]);
    expect(peer.recorder.of('reset')).toEqual([]);
  });

  test('extended CONNECT, once agreed', () => {
    const list: HeaderList = [[':method', 'CONNECT'], [':protocol', 'websocket'], ...GET.slice(1)];
    const server = RawPeer.server({ allowExtendedConnect: true });
    server.send(headers(1, list));
    expect(server.recorder.of('request')).toHaveLength(1);
    const client = RawPeer.client();
    expect(() => client.session.request(list, client.recorder, false)).toThrow(':protocol not allowed');
    client.send(settings([Setting.ENABLE_CONNECT_PROTOCOL, 1]));
    expect(client.session.peerAllowsExtendedConnect).toBe(true);
    client.session.request(list, client.recorder, false);
    expect(client.session.openStreams).toBe(1);
  });

  test('an error code nobody knows counts as INTERNAL_ERROR', () => {
    const peer = RawPeer.server();
    peer.send(OPEN, rstStream(1, 0xdeadbeef));
    expect(peer.recorder.of('reset')[0]!.code).toBe(ErrorCode.INTERNAL_ERROR);
  });
});
