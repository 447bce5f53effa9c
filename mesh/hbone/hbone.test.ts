import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { accept, CLIENT_ID, echo, HboneLab, SERVER_ID, TunnelRecorder } from '../../test/support/hbone.js';
import { WireProxy } from '../../test/support/wire-proxy.js';
import type { TunnelRequest } from './index.js';

describe('a tunnel', () => {
  test('carries bytes both ways, with what the headers say', async () => {
    using lab = new HboneLab();
    const client = lab.open('127.0.0.1:8080', lab.hop(), {
      baggage: { namespace: 'shop', workloadType: 'pod', workloadName: 'client' },
      forwardedFor: { address: '10.0.0.9', port: 4321 },
      forwardedHost: 'web.shop.svc.cluster.local',
    });
    client.send('hello');
    await lab.t.until(() => client.received.toString() === 'hello');
    expect(client.events).toEqual(['established']);
    expect(client.response).toEqual({
      baggage: { namespace: 'shop', workloadType: 'pod', workloadName: 'server' },
    });
    const [request] = lab.acceptor.requests;
    expect(request).toMatchObject({
      authority: '127.0.0.1:8080',
      address: { address: '127.0.0.1', port: 8080 },
      host: null,
      peerIdentity: CLIENT_ID,
      local: { address: '127.0.0.1', port: lab.listening.port },
      metadata: {
        baggage: { namespace: 'shop', workloadType: 'pod', workloadName: 'client' },
        forwardedFor: { address: '10.0.0.9', port: 4321 },
        forwardedHost: 'web.shop.svc.cluster.local',
        traceparent: expect.stringMatching(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/),
      },
    });
    client.send('', true);
    await lab.t.until(() => client.has('end'));
    expect(client.events).toEqual(['established', 'end']);
    expect(client.tunnel!.isOpen).toBe(false);
  });

  test('half-close, the client first: the server goes on', async () => {
    using lab = new HboneLab({ decide: accept });
    const client = await lab.established();
    const [server] = lab.acceptor.handlers as [TunnelRecorder];
    client.send('question', true);
    await lab.t.until(() => server.has('end'));
    expect(server.received.toString()).toBe('question');
    expect(client.tunnel!.isOpen && server.tunnel!.isOpen).toBe(true);
    server.send('a long ');
    await lab.t.until(() => client.received.length === 7);
    server.send('answer', true);
    await lab.t.until(() => client.has('end'));
    expect(client.received.toString()).toBe('a long answer');
    expect(client.events).toEqual(['established', 'end']);
    expect(lab.client.stats).toMatchObject({ connections: 1, tunnels: 0 });
  });

  test('half-close, the server first: the client goes on', async () => {
    using lab = new HboneLab({ decide: accept });
    const client = await lab.established();
    const [server] = lab.acceptor.handlers as [TunnelRecorder];
    server.send('bye', true);
    await lab.t.until(() => client.has('end'));
    client.send('still ');
    await lab.t.until(() => server.received.length === 6);
    client.send('here', true);
    await lab.t.until(() => server.has('end'));
    expect(server.received.toString()).toBe('still here');
    expect(server.events).toEqual(['end']);
    expect(server.tunnel!.isOpen).toBe(false);
  });

  test.each(['client', 'server'])(
    'a reset by the %s is a reset at the other end, never an end',
    async (side) => {
      using lab = new HboneLab({ decide: accept });
      const client = await lab.established();
      const [server] = lab.acceptor.handlers as [TunnelRecorder];
      const [from, to] = side === 'client' ? [client, server] : [server, client];
      from.send('cut off he');
      from.tunnel!.reset();
      await lab.t.until(() => to.isDone);
      expect(to.events.at(-1)).toBe('reset');
      expect(to.has('end')).toBe(false);
      expect(to.resetCause).toContain('HTTP/2 error 8');
      expect(from.isDone).toBe(false);
      expect(lab.client.stats).toMatchObject({ connections: 1, tunnels: 0 });
    },
  );

  test('a reset after half-close is a reset', async () => {
    using lab = new HboneLab({ decide: accept });
    const client = await lab.established();
    const [server] = lab.acceptor.handlers as [TunnelRecorder];
    client.send('x', true);
    await lab.t.until(() => server.has('end'));
    server.tunnel!.reset();
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['established', 'reset']);
  });

  test.each(['cut', 'end'] as const)('a lost connection (%s) is a reset at both ends', async (how) => {
    using lab = new HboneLab({ decide: accept });
    using wire = await WireProxy.to(lab.listening.port);
    const hop = lab.hop({ address: { address: '127.0.0.1', port: wire.port } });
    const client = await lab.established('127.0.0.1:80', hop);
    const [server] = lab.acceptor.handlers as [TunnelRecorder];
    wire[how]();
    await lab.t.until(() => client.isDone && server.isDone);
    expect(client.events).toEqual(['established', 'reset']);
    expect(server.events).toEqual(['reset']);
    expect(lab.client.stats).toEqual({ connections: 0, tunnels: 0, waitingTunnels: 0 });
    expect(lab.server.connectionCount).toBe(0);
  });

  test('8 MiB there and back, in any framing, are the same bytes', async () => {
    using lab = new HboneLab();
    const client = await lab.established();
    const sent = randomBytes(8 * 1024 * 1024);
    client.send(sent, true);
    await lab.t.until(() => client.has('end'), 'the echo');
    const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
    expect(digest(client.received)).toBe(digest(sent));
  });
});

describe('bytes before the answer', () => {
  function delayed(): { decide: (request: TunnelRequest, handler: TunnelRecorder) => void; go(): void } {
    let pending: (() => void) | null = null;
    return {
      decide: (request, handler) => {
        pending = () => accept(request, handler);
      },
      go: () => pending!(),
    };
  }

  test('ride behind the CONNECT', async () => {
    const gate = delayed();
    using lab = new HboneLab({ decide: gate.decide });
    const client = lab.open();
    client.send('early', true);
    await lab.t.until(() => lab.acceptor.handlers[0]?.has('end') === true);
    expect(lab.acceptor.handlers[0]!.received.toString()).toBe('early');
    expect(client.events).toEqual([]);
    gate.go();
    await lab.t.until(() => client.has('established'));
  });

  test('are limited until it comes', async () => {
    const gate = delayed();
    using lab = new HboneLab({ decide: gate.decide, client: { earlyDataBytes: 1000 } });
    const client = lab.open();
    client.send(Buffer.alloc(5000, 'x'));
    await lab.t.until(() => lab.acceptor.handlers[0]?.receivedBytes === 1000);
    await lab.t.for(30);
    expect(client.unsentBytes).toBe(4000);
    gate.go();
    await lab.t.until(() => lab.acceptor.handlers[0]!.receivedBytes === 5000);
  });

  test('do not exist when turned off', async () => {
    const gate = delayed();
    using lab = new HboneLab({ decide: gate.decide, client: { earlyDataBytes: 0 } });
    const client = lab.open();
    client.send('late');
    await lab.t.until(() => lab.acceptor.handlers.length === 1);
    await lab.t.for(30);
    expect(lab.acceptor.handlers[0]!.receivedBytes).toBe(0);
    gate.go();
    await lab.t.until(() => lab.acceptor.handlers[0]!.received.toString() === 'late');
  });

  test('of a refused tunnel are lost, and it is a failure, never an end', async () => {
    using lab = new HboneLab({ decide: (request) => request.refuse(401) });
    const client = lab.open();
    client.send('secret', true);
    await lab.t.until(() => client.isDone);
    await lab.t.for(20);
    expect(client.events).toEqual(['failed']);
    expect(client.failure).toMatchObject({ flag: 'DENY', status: 401 });
    expect(lab.acceptor.handlers[0]!.events).toEqual([]);
    expect(lab.client.stats).toMatchObject({ connections: 1, tunnels: 0 });
  });

  test('of a refused tunnel are given back, and go first into another, with the end that came behind them', async () => {
    using lab = new HboneLab({ decide: (request) => request.refuse(503) });
    const first = lab.open();
    first.send('at first', true);
    await lab.t.until(() => first.isDone);
    expect(first.undelivered).toEqual({ bytes: Buffer.from('at first'), ended: true });
    const unsent = lab.open();
    await lab.t.until(() => unsent.isDone);
    expect(unsent.undelivered).toEqual({ bytes: null, ended: false });

    lab.acceptor.decide = echo;
    const second = new TunnelRecorder();
    second.tunnel = lab.client.open(lab.hop(), '127.0.0.1:8080', {}, second, {
      undelivered: first.undelivered,
    });
    await lab.t.until(() => second.has('end'));
    expect(second.events).toEqual(['established', 'end']);
    expect(second.received.toString()).toBe('at first');
    const third = new TunnelRecorder();
    third.tunnel = lab.client.open(lab.hop(), '127.0.0.1:8080', {}, third, {
      undelivered: { bytes: Buffer.from('kept '), ended: false },
    });
    third.send('and new', true);
    await lab.t.until(() => third.has('end'));
    expect(third.received.toString()).toBe('kept and new');
  });

  test('a connection lost before the answer is a failure', async () => {
    using lab = new HboneLab();
    using wire = await WireProxy.to(lab.listening.port);
    const hop = lab.hop({ address: { address: '127.0.0.1', port: wire.port } });
    await lab.established('127.0.0.1:80', hop);
    lab.acceptor.decide = () => {};
    const client = lab.open('127.0.0.1:80', hop);
    client.send('x', true);
    await lab.t.until(() => lab.acceptor.handlers.length === 2);
    wire.cut();
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['failed']);
    expect(client.failure!.flag).toBe('CONNECT');
    // They may have arrived.
    expect(client.undelivered).toBeNull();
  });
});

describe('the server answers', () => {
  const cases: [string, number][] = [
    ['127.0.0.2:8080', 400],
    ['[::1]:8080', 400],
    ['nonsense', 400],
    ['127.0.0.1:0', 400],
    ['127.0.0.1:15008', 503],
    ['127.0.0.1:15006', 503],
    ['127.0.0.1:15001', 503],
  ];
  test.each(cases)('%s with %d, and the acceptor hears nothing', async (authority, status) => {
    using lab = new HboneLab();
    const client = lab.open(authority);
    await lab.t.until(() => client.isDone);
    expect(client.failure).toMatchObject({ flag: 'CONNECT', status });
    expect(lab.acceptor.requests).toHaveLength(0);
    expect((await lab.established()).failure).toBeNull();
    expect(lab.client.stats.connections).toBe(1);
  });

  test('another address where the acceptor says so', async () => {
    using lab = new HboneLab();
    Object.assign(lab.acceptor, { acceptsAddress: () => true });
    await lab.established('127.0.0.2:8080');
    expect(lab.acceptor.requests[0]!.address).toEqual({ address: '127.0.0.2', port: 8080 });
  });

  test('a hostname', async () => {
    using lab = new HboneLab();
    await lab.established('web.shop.svc.cluster.local:80');
    const [request] = lab.acceptor.requests;
    expect(request).toMatchObject({
      address: null,
      host: { hostname: 'web.shop.svc.cluster.local', port: 80 },
    });
  });

  test('late, when the peer is gone: nothing happens', async () => {
    using lab = new HboneLab({ decide: () => {} });
    const client = lab.open();
    await lab.t.until(() => lab.acceptor.handlers.length === 1);
    client.tunnel!.reset();
    await lab.t.until(() => lab.acceptor.handlers[0]!.isDone);
    const [request] = lab.acceptor.requests as [TunnelRequest];
    request.refuse(503);
    request.accept({}).commitData(0, false);
    expect(lab.acceptor.handlers[0]!.events).toEqual(['reset']);
  });
});

describe('identities', () => {
  test('a server that is somebody else gets no byte of HTTP/2', async () => {
    using lab = new HboneLab({ serverId: 'spiffe://cluster.local/ns/shop/sa/mallory' });
    const client = lab.open();
    client.send('secret');
    await lab.t.until(() => client.isDone);
    expect(client.failure).toMatchObject({ flag: 'IDENTITY_ERROR' });
    expect(client.failure!.message).toContain('sa/mallory');
    await lab.t.until(() => lab.server.connectionCount === 0);
    expect(lab.acceptor.requests).toHaveLength(0);
  });

  test('any one of the expected will do; none is none', async () => {
    using lab = new HboneLab();
    const other = 'spiffe://cluster.local/ns/shop/sa/other';
    await lab.established('127.0.0.1:80', lab.hop({ expectedIdentities: [other, SERVER_ID] }));
    const client = lab.open('127.0.0.1:80', lab.hop({ expectedIdentities: [] }));
    await lab.t.until(() => client.isDone);
    expect(client.failure!.flag).toBe('IDENTITY_ERROR');
  });

  test('a client of another trust domain is refused, unless that is an alias', async () => {
    const sourceIdentity = 'spiffe://other.example/ns/shop/sa/client';
    using lab = new HboneLab();
    const client = lab.open('127.0.0.1:80', lab.hop({ sourceIdentity }));
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['failed']);
    expect(client.failure!.flag).toBe('H2_HANDSHAKE_FAILURE');
    expect(lab.acceptor.requests).toHaveLength(0);

    using open = new HboneLab({ trustDomainAliases: ['other.example'] });
    await open.established('127.0.0.1:80', open.hop({ sourceIdentity }));
    expect(open.acceptor.requests[0]!.peerIdentity).toBe(sourceIdentity);
  });

  test('certificates of another root fail TLS, whichever side has them', async () => {
    using lab = new HboneLab();
    using foreign = new HboneLab();
    lab.clientTls.set(CLIENT_ID, foreign.context(foreign.ca.issue(CLIENT_ID)));
    const client = lab.open();
    await lab.t.until(() => client.isDone);
    expect(client.failure!.flag).toBe('TLS_FAILURE');
    await lab.t.until(() => lab.server.connectionCount === 0);
  });

  test('without a certificate there is no tunnel', () => {
    using lab = new HboneLab();
    lab.clientTls.set(CLIENT_ID, null);
    const client = lab.open();
    expect(client.failure!.flag).toBe('IDENTITY_ERROR');
    expect(lab.client.stats.connections).toBe(0);
  });
});
