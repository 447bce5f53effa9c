// Longer than 400 lines: one oracle, as client, as server and frame by frame, with one set of helpers.
import { once } from 'node:events';
import http2 from 'node:http2';
import type net from 'node:net';
import { describe, expect, test } from '@jest/globals';
import { accept, CLIENT_ID, HboneLab, SERVER_ID, type TunnelRecorder } from '../support/hbone.js';
import { FLAG, FRAME, RawHttp2 } from '../support/raw-http2.js';
import { nodeTlsOptions } from '../support/test-ca.js';

const { NGHTTP2_CANCEL, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = http2.constants;

describe('node:http2 as client of our server', () => {
  function connect(lab: HboneLab, identity = CLIENT_ID): http2.ClientHttp2Session {
    const options = { ...nodeTlsOptions(lab.ca.issue(identity)), checkServerIdentity: () => undefined };
    const session = http2.connect(`https://127.0.0.1:${lab.listening.port}`, options);
    session.on('error', () => {});
    return session;
  }

  function tunnel(
    session: http2.ClientHttp2Session,
    authority = '127.0.0.1:8080',
    headers: http2.OutgoingHttpHeaders = {},
  ) {
    const stream = session.request({ ':method': 'CONNECT', ':authority': authority, ...headers });
    const state = {
      stream,
      received: '',
      status: 0,
      headers: {} as http2.IncomingHttpHeaders,
      ended: false,
      closed: false,
      code: -1,
    };
    stream.on('response', (got) => {
      state.status = Number(got[':status']);
      state.headers = got;
    });
    stream.on('data', (chunk) => {
      state.received += chunk;
    });
    stream.on('end', () => {
      state.ended = true;
    });
    stream.on('error', () => {});
    stream.on('close', () => {
      state.closed = true;
      state.code = stream.rstCode;
    });
    return state;
  }

  test('a tunnel: headers, bytes, half-close', async () => {
    using lab = new HboneLab();
    const session = connect(lab);
    const got = tunnel(session, 'web.shop.svc:80', {
      baggage: 'k8s.namespace.name=shop,k8s.deployment.name=client',
      forwarded: 'for="10.0.0.9:1234";host=web.shop.svc',
    });
    got.stream.write('hello');
    await lab.t.until(() => got.received === 'hello');
    expect(got.headers).toMatchObject({
      ':status': 200,
      baggage: 'k8s.namespace.name=shop,k8s.pod.name=server',
    });
    expect(lab.acceptor.requests[0]).toMatchObject({
      host: { hostname: 'web.shop.svc', port: 80 },
      peerIdentity: CLIENT_ID,
      metadata: {
        baggage: { namespace: 'shop', workloadType: 'deployment', workloadName: 'client' },
        forwardedFor: { address: '10.0.0.9', port: 1234 },
        forwardedHost: 'web.shop.svc',
      },
    });
    got.stream.end(' bye');
    await lab.t.until(() => got.closed);
    expect(got).toMatchObject({ received: 'hello bye', ended: true, code: NGHTTP2_NO_ERROR });
    session.close();
    await lab.t.until(() => lab.server.connectionCount === 0);
  });

  test('megabytes through one tunnel', async () => {
    using lab = new HboneLab();
    const session = connect(lab);
    const stream = session.request({ ':method': 'CONNECT', ':authority': '127.0.0.1:80' });
    let bytes = 0;
    stream.on('data', (chunk) => {
      bytes += chunk.length;
    });
    stream.end(Buffer.alloc(6 * 1024 * 1024, 'x'));
    await lab.t.during(once(stream, 'close'));
    expect(bytes).toBe(6 * 1024 * 1024);
    session.close();
  });

  test.each([
    ['127.0.0.9:80', 400],
    ['127.0.0.1:15008', 503],
  ])('%s: %d', async (authority, status) => {
    using lab = new HboneLab();
    const session = connect(lab);
    const got = tunnel(session, authority);
    await lab.t.until(() => got.closed);
    expect(got).toMatchObject({ status, ended: true, received: '' });
    session.destroy();
  });

  test('another method: 400', async () => {
    using lab = new HboneLab();
    const session = connect(lab);
    const stream = session.request({ ':method': 'GET', ':path': '/' });
    const [headers] = (await lab.t.during(once(stream, 'response'))) as [http2.IncomingHttpHeaders];
    expect(headers[':status']).toBe(400);
    expect(lab.acceptor.requests).toHaveLength(0);
    session.destroy();
  });

  test('a reset by our side is an error there', async () => {
    using lab = new HboneLab({ decide: accept });
    const session = connect(lab);
    const got = tunnel(session);
    await lab.t.until(() => got.status === 200);
    lab.acceptor.handlers[0]!.tunnel!.reset();
    await lab.t.until(() => got.closed);
    expect(got.code).toBe(NGHTTP2_CANCEL);
    session.destroy();
  });

  test('a drain is a GOAWAY there; a session that dies is a reset here', async () => {
    using lab = new HboneLab({ decide: accept });
    const session = connect(lab);
    const goneAway = once(session, 'goaway');
    const got = tunnel(session);
    await lab.t.until(() => got.status === 200);
    lab.server.drain(10_000, () => {});
    const [code] = await lab.t.during(goneAway);
    expect(code).toBe(NGHTTP2_NO_ERROR);
    session.destroy();
    await lab.t.until(() => lab.acceptor.handlers[0]!.isDone);
    expect(lab.acceptor.handlers[0]!.events).toEqual(['reset']);
  });

  test('a client of another trust domain is cut off', async () => {
    using lab = new HboneLab();
    const session = connect(lab, 'spiffe://other/ns/a/sa/b');
    const got = tunnel(session);
    await lab.t.until(() => session.destroyed);
    expect(got.status).toBe(0);
    expect(lab.acceptor.requests).toHaveLength(0);
  });
});

describe('a client frame by frame', () => {
  async function raw(lab: HboneLab): Promise<RawHttp2> {
    const client = new RawHttp2(lab.listening.port, lab.ca.issue(CLIENT_ID));
    await lab.t.during(client.connected);
    client.preface();
    return client;
  }

  async function opened(lab: HboneLab, client: RawHttp2): Promise<TunnelRecorder> {
    client.connect(1, '127.0.0.1:80');
    await lab.t.until(() => client.of(FRAME.HEADERS, 1).length === 1);
    return lab.acceptor.handlers[0]!;
  }

  test('RST_STREAM of any code is a reset, never an end', async () => {
    for (const code of [NGHTTP2_NO_ERROR, NGHTTP2_CANCEL, http2.constants.NGHTTP2_INTERNAL_ERROR]) {
      using lab = new HboneLab({ decide: accept });
      using client = await raw(lab);
      const server = await opened(lab, client);
      client.send(FRAME.DATA, 0, 1, Buffer.from('half a me'));
      client.reset(1, code);
      await lab.t.until(() => server.isDone);
      expect(server.events).toEqual(['reset']);
      expect(server.received.toString()).toBe('half a me');
    }
  });

  test('our SETTINGS: 64 KiB windows, 1 MiB frames, 200 streams, 64 KiB of headers; such frames are taken', async () => {
    using lab = new HboneLab({ decide: accept });
    using client = await raw(lab);
    const server = await opened(lab, client);
    const settings = new Map<number, number>();
    const { payload } = client.of(FRAME.SETTINGS)[0]!;
    for (let at = 0; at < payload.length; at += 6)
      settings.set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
    expect(settings.get(3)).toBe(200);
    expect(settings.get(4)).toBe(65_535);
    expect(settings.get(5)).toBe(1024 * 1024);
    expect(settings.get(6)).toBe(64 * 1024);
    client.send(FRAME.DATA, 0, 1, Buffer.alloc(65_535, 'x'));
    await lab.t.until(() => server.receivedBytes === 65_535);
    // the reader keeps up, so the window grows: to more than one frame of the largest size
    let window = 65_535;
    for (let sent = 65_535; sent < 16 * 1024 * 1024; ) {
      const granted = client
        .of(FRAME.WINDOW_UPDATE, 1)
        .reduce((sum, one) => sum + one.payload.readUInt32BE(0), 0);
      window = 65_535 + granted - sent;
      if (window >= 1024 * 1024) break;
      client.send(FRAME.DATA, 0, 1, Buffer.alloc(Math.max(window, 0), 'x'));
      sent += Math.max(window, 0);
      const before = client.of(FRAME.WINDOW_UPDATE, 1).length;
      await lab.t.until(() => client.of(FRAME.WINDOW_UPDATE, 1).length > before);
    }
    expect(window).toBeGreaterThanOrEqual(1024 * 1024);
    const before = server.receivedBytes;
    client.send(FRAME.DATA, FLAG.END_STREAM, 1, Buffer.alloc(1024 * 1024, 'y'));
    await lab.t.until(() => server.has('end'));
    expect(server.receivedBytes - before).toBe(1024 * 1024);
  });

  test(':path or :scheme on CONNECT: the stream is reset', async () => {
    using lab = new HboneLab();
    using client = await raw(lab);
    const base = [
      [':method', 'CONNECT'],
      [':authority', '127.0.0.1:80'],
    ] as const;
    client.headers(1, [...base, [':path', '/']]);
    client.headers(3, [...base, [':scheme', 'https']]);
    client.connect(5, '127.0.0.1:80');
    await lab.t.until(() => client.of(FRAME.HEADERS, 5).length === 1);
    expect(client.of(FRAME.RST_STREAM).map((one) => [one.stream, one.payload.readUInt32BE(0)])).toEqual([
      [1, 1],
      [3, 1],
    ]);
    expect(lab.acceptor.requests).toHaveLength(1);
  });

  test('a refusal is HEADERS with END_STREAM, then RST_STREAM(NO_ERROR); what was sent behind it is dropped', async () => {
    using lab = new HboneLab({ decide: (request) => request.refuse(401) });
    using client = await raw(lab);
    client.connect(1, '127.0.0.1:80');
    client.send(FRAME.DATA, 0, 1, Buffer.from('secret'));
    await lab.t.until(() => client.of(FRAME.RST_STREAM, 1).length === 1);
    const [headers] = client.of(FRAME.HEADERS, 1);
    expect(headers!.flags & FLAG.END_STREAM).toBe(FLAG.END_STREAM);
    expect(client.of(FRAME.RST_STREAM, 1)[0]!.payload.readUInt32BE(0)).toBe(NGHTTP2_NO_ERROR);
    await lab.t.for(20);
    expect(lab.acceptor.handlers[0]!.receivedBytes).toBe(0);
    expect(client.of(FRAME.GOAWAY)).toEqual([]);
  });

  test('END_STREAM on the CONNECT itself is an end', async () => {
    using lab = new HboneLab({ decide: accept });
    using client = await raw(lab);
    client.connect(1, '127.0.0.1:80', FLAG.END_HEADERS | FLAG.END_STREAM);
    await lab.t.until(() => lab.acceptor.handlers[0]?.has('end') === true);
    expect(lab.acceptor.handlers[0]!.events).toEqual(['end']);
  });

  test('HTTP/2 gone wrong ends the connection with a GOAWAY, and tunnels are reset', async () => {
    using lab = new HboneLab({ decide: accept });
    using client = await raw(lab);
    const server = await opened(lab, client);
    client.send(FRAME.DATA, 0, 0, Buffer.from('on stream 0'));
    await lab.t.until(() => server.isDone && client.hasEnded);
    expect(server.events).toEqual(['reset']);
    expect(client.of(FRAME.GOAWAY)[0]!.payload.readUInt32BE(4)).toBe(http2.constants.NGHTTP2_PROTOCOL_ERROR);
    expect(lab.server.connectionCount).toBe(0);
  });

  test('a PING that gets no answer ends in GOAWAY(NO_ERROR)', async () => {
    using lab = new HboneLab({ decide: accept, server: { pingIntervalMs: 400, pingTimeoutMs: 800 } });
    using client = await raw(lab);
    await opened(lab, client);
    client.send(FRAME.SETTINGS, FLAG.ACK, 0, Buffer.alloc(0));
    await lab.t.until(() => client.hasEnded);
    expect(client.of(FRAME.PING).length).toBe(1);
    expect(client.of(FRAME.GOAWAY)[0]!.payload.readUInt32BE(4)).toBe(NGHTTP2_NO_ERROR);
  });

  test('SETTINGS that are never acknowledged end in GOAWAY(SETTINGS_TIMEOUT)', async () => {
    using lab = new HboneLab({ decide: accept, server: { pingIntervalMs: 400, pingTimeoutMs: 800 } });
    using client = await raw(lab);
    await opened(lab, client);
    await lab.t.until(() => client.hasEnded);
    expect(client.of(FRAME.GOAWAY)[0]!.payload.readUInt32BE(4)).toBe(
      http2.constants.NGHTTP2_SETTINGS_TIMEOUT,
    );
  });
});

describe('node:http2 as server of our client', () => {
  type OnStream = (
    stream: http2.ServerHttp2Stream,
    headers: http2.IncomingHttpHeaders,
    session: number,
  ) => void;

  class NodeServer implements AsyncDisposable {
    readonly server: http2.Http2SecureServer;
    readonly sessions: http2.ServerHttp2Session[] = [];

    constructor(lab: HboneLab, onStream: OnStream, settings: http2.Settings = {}) {
      const material = nodeTlsOptions(lab.ca.issue(SERVER_ID));
      this.server = http2.createSecureServer({
        ...material,
        requestCert: true,
        rejectUnauthorized: true,
        settings,
      });
      this.server.on('session', (session) => {
        const index = this.sessions.push(session);
        session.on('error', () => {});
        session.on('stream', (stream, headers) => {
          stream.on('error', () => {});
          onStream(stream as http2.ServerHttp2Stream, headers, index);
        });
      });
    }

    async listen(): Promise<{ address: string; port: number }> {
      this.server.listen(0, '127.0.0.1');
      await once(this.server, 'listening');
      return { address: '127.0.0.1', port: (this.server.address() as net.AddressInfo).port };
    }

    async [Symbol.asyncDispose](): Promise<void> {
      for (const session of this.sessions) session.destroy();
      this.server.close();
    }
  }

  const nodeEcho: OnStream = (stream) => {
    stream.respond({ ':status': 200, baggage: 'k8s.namespace.name=there' });
    stream.pipe(stream);
  };

  async function peer(lab: HboneLab, onStream: OnStream, settings?: http2.Settings) {
    const server = new NodeServer(lab, onStream, settings);
    return { server, hop: lab.hop({ address: await server.listen() }) };
  }

  test('a tunnel: headers, bytes, half-close', async () => {
    using lab = new HboneLab();
    let seen: http2.IncomingHttpHeaders = {};
    const { server, hop } = await peer(lab, (stream, headers, index) => {
      seen = headers;
      nodeEcho(stream, headers, index);
    });
    await using _ = server;
    const client = lab.open('10.1.2.3:8080', hop, { baggage: { namespace: 'here' }, forwardedHost: 'a.b' });
    client.send('hello', true);
    await lab.t.until(() => client.has('end'));
    expect(client.events).toEqual(['established', 'end']);
    expect(client.received.toString()).toBe('hello');
    expect(client.response).toEqual({ baggage: { namespace: 'there' } });
    expect(seen).toMatchObject({
      ':method': 'CONNECT',
      ':authority': '10.1.2.3:8080',
      baggage: 'k8s.namespace.name=here',
      forwarded: 'host=a.b',
      traceparent: expect.stringMatching(/^00-/),
    });
    expect(
      Object.keys(seen)
        .filter((name) => name.startsWith(':'))
        .sort(),
    ).toEqual([':authority', ':method']);
  });

  test('megabytes there and back', async () => {
    using lab = new HboneLab();
    const { server, hop } = await peer(lab, nodeEcho);
    await using _ = server;
    const client = lab.open('10.1.2.3:8080', hop);
    client.send(Buffer.alloc(6 * 1024 * 1024, 'x'), true);
    await lab.t.until(() => client.has('end'));
    expect(client.receivedBytes).toBe(6 * 1024 * 1024);
  });

  test.each([
    [401, 'DENY'],
    [503, 'CONNECT'],
    [302, 'CONNECT'],
    [204, 'CONNECT'],
  ])('status %d is a failure with flag %s', async (status, flag) => {
    using lab = new HboneLab();
    const { server, hop } = await peer(lab, (stream) =>
      stream.respond({ ':status': status }, { endStream: true }),
    );
    await using _ = server;
    const client = lab.open('10.1.2.3:8080', hop);
    client.send('lost', true);
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['failed']);
    expect(client.failure).toMatchObject({ status, flag });
  });

  test('resets both ways', async () => {
    using lab = new HboneLab();
    const codes: number[] = [];
    const { server, hop } = await peer(lab, (stream) => {
      stream.respond({ ':status': 200 });
      stream.on('data', (chunk) => {
        if (chunk.toString() === 'reset me') stream.destroy(new Error('reset'));
      });
      stream.on('close', () => codes.push(stream.rstCode));
    });
    await using _ = server;
    const first = await lab.established('10.1.2.3:1', hop);
    first.send('reset me');
    await lab.t.until(() => first.isDone);
    expect(first.events).toEqual(['established', 'reset']);
    const second = await lab.established('10.1.2.3:1', hop);
    second.tunnel!.reset();
    await lab.t.until(() => codes.length === 2);
    expect(codes[1]).toBe(NGHTTP2_CANCEL);
    expect(lab.client.stats.connections).toBe(1);
  });

  test("the peer's MAX_CONCURRENT_STREAMS lowers ours: more connections, no refusals seen", async () => {
    using lab = new HboneLab();
    const { server, hop } = await peer(lab, nodeEcho, { maxConcurrentStreams: 10 });
    await using _ = server;
    const tunnels = Array.from({ length: 35 }, () => lab.open('10.1.2.3:1', hop));
    for (const one of tunnels) one.send('x');
    await lab.t.until(() => tunnels.every((one) => one.received.toString() === 'x' || one.isDone));
    expect(tunnels.map((one) => one.failure).filter((one) => one !== null)).toEqual([]);
    expect(server.sessions.length).toBeGreaterThanOrEqual(4);
  });

  test('REFUSED_STREAM: once more on a new connection, with the bytes that had gone along', async () => {
    using lab = new HboneLab();
    const { server, hop } = await peer(lab, (stream, headers, index) => {
      if (index === 1) stream.close(NGHTTP2_REFUSED_STREAM);
      else nodeEcho(stream, headers, index);
    });
    await using _ = server;
    const client = lab.open('10.1.2.3:1', hop);
    await lab.t.until(() => client.unsentBytes === 0 && client.tunnel!.sendCapacity() > 0);
    client.send('early bytes', true);
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['established', 'end']);
    expect(client.received.toString()).toBe('early bytes');
    expect(server.sessions).toHaveLength(2);
  });

  test('REFUSED_STREAM twice is a failure', async () => {
    using lab = new HboneLab();
    let count = 0;
    const { server, hop } = await peer(lab, (stream) => {
      count++;
      stream.close(NGHTTP2_REFUSED_STREAM);
    });
    await using _ = server;
    const client = lab.open('10.1.2.3:1', hop);
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['failed']);
    expect(count).toBe(2);
  });

  test('GOAWAY: open tunnels go on, unseen ones move, new ones use a new connection', async () => {
    using lab = new HboneLab();
    const { server, hop } = await peer(lab, (stream, headers, index) => {
      // the second CONNECT of the first connection was, as the peer says, never looked at
      if (index === 1 && stream.id === 3) server.sessions[0]!.goaway(NGHTTP2_NO_ERROR, 1);
      else nodeEcho(stream, headers, index);
    });
    await using _ = server;
    const old = await lab.established('10.1.2.3:1', hop);
    const moved = lab.open('10.1.2.3:1', hop);
    moved.send('moved');
    await lab.t.until(() => moved.received.toString() === 'moved' || moved.isDone);
    expect(moved.events).toEqual(['established']);
    expect(server.sessions).toHaveLength(2);
    old.send('old');
    await lab.t.until(() => old.received.toString() === 'old');
    const fresh = await lab.established('10.1.2.3:1', hop);
    expect(server.sessions).toHaveLength(2);
    expect(lab.client.stats).toMatchObject({ connections: 2, tunnels: 3 });
    old.send('', true);
    await lab.t.until(() => old.has('end') && lab.client.stats.connections === 1);
    expect(fresh.isDone).toBe(false);
  });

  test('a server that dies: reset', async () => {
    using lab = new HboneLab();
    const { server, hop } = await peer(lab, nodeEcho);
    await using _ = server;
    const client = await lab.established('10.1.2.3:1', hop);
    server.sessions[0]!.destroy();
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['established', 'reset']);
  });
});
