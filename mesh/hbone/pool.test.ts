import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import tls from 'node:tls';
import { describe, expect, test } from '@jest/globals';
import { accept, CLIENT_ID, HboneLab, SERVER_ID, type TunnelRecorder } from '../../test/support/hbone.js';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { nodeTlsOptions } from '../../test/support/test-ca.js';
import { WireProxy } from '../../test/support/wire-proxy.js';
import type { NextHop } from './index.js';

function openMany(lab: HboneLab, count: number, hop = lab.hop()): TunnelRecorder[] {
  return Array.from({ length: count }, () => lab.open('127.0.0.1:80', hop));
}

async function allEstablished(lab: HboneLab, tunnels: TunnelRecorder[]): Promise<void> {
  await lab.t.until(() => tunnels.every((one) => one.has('established') || one.isDone), 'all tunnels');
  expect(tunnels.filter((one) => one.isDone)).toEqual([]);
}

describe('pooling', () => {
  test('those who wait for one connection share it', async () => {
    using lab = new HboneLab();
    const tunnels = openMany(lab, 60);
    expect(lab.client.stats).toEqual({ connections: 1, tunnels: 0, waitingTunnels: 60 });
    await allEstablished(lab, tunnels);
    expect(lab.client.stats).toEqual({ connections: 1, tunnels: 60, waitingTunnels: 0 });
    expect(lab.t.reactor.counters.dialled).toBe(1);
  });

  test.each([
    ['source', { sourceUid: 'cluster//Pod/shop/client-2' }],
    ['identity of the source', { sourceIdentity: 'spiffe://cluster.local/ns/shop/sa/client-2' }],
    ['expected identities', { expectedIdentities: [SERVER_ID, 'spiffe://cluster.local/ns/shop/sa/x'] }],
    [
      'order of expected identities',
      { expectedIdentities: ['spiffe://cluster.local/ns/shop/sa/x', SERVER_ID] },
    ],
    ['source address', { fromAddress: '127.0.0.2' }],
  ] as [string, Partial<NextHop>][])('another %s never shares', async (_, other) => {
    using lab = new HboneLab();
    const first = { expectedIdentities: [SERVER_ID, 'spiffe://cluster.local/ns/shop/sa/y'] };
    if (other.expectedIdentities?.[1] === SERVER_ID)
      Object.assign(first, { expectedIdentities: [...other.expectedIdentities].reverse() });
    await lab.established('127.0.0.1:80', lab.hop(first));
    await lab.established('127.0.0.1:80', lab.hop({ ...first, ...other }));
    expect(lab.client.stats.connections).toBe(2);
    await lab.established('127.0.0.1:80', lab.hop(first));
    expect(lab.client.stats.connections).toBe(2);
  });

  test('100 tunnels to a connection; a full one finishes and does not come back', async () => {
    using lab = new HboneLab();
    const tunnels = openMany(lab, 250);
    await allEstablished(lab, tunnels);
    expect(lab.client.stats).toEqual({ connections: 3, tunnels: 250, waitingTunnels: 0 });
    const perPort = new Map<number, number>();
    for (const { peer } of lab.acceptor.requests) perPort.set(peer.port, (perPort.get(peer.port) ?? 0) + 1);
    expect([...perPort.values()]).toEqual([100, 100, 50]);
    // room on the first one again, but it is out of the pool
    for (const one of tunnels.slice(0, 99)) one.tunnel!.reset();
    const late = await lab.established();
    expect(lab.acceptor.requests.at(-1)!.peer.port).toBe([...perPort.keys()][2]);
    expect(lab.client.stats.connections).toBe(3);
    tunnels[99]!.tunnel!.reset();
    await lab.t.until(() => lab.client.stats.connections === 2);
    expect(late.isDone).toBe(false);
  });

  test('more than may wait fail at once', () => {
    using lab = new HboneLab({ client: { maxWaitingTunnels: 10 } });
    const tunnels = openMany(lab, 12);
    expect(tunnels.map((one) => one.failure?.flag)).toEqual([
      ...new Array(10).fill(undefined),
      'CONNECT',
      'CONNECT',
    ]);
  });

  test('a tunnel given up while it waits costs nothing', async () => {
    using lab = new HboneLab();
    const [given, kept] = openMany(lab, 2) as [TunnelRecorder, TunnelRecorder];
    given.tunnel!.reset();
    await allEstablished(lab, [kept]);
    await lab.t.for(20);
    expect(given.events).toEqual([]);
    expect(lab.acceptor.requests).toHaveLength(1);
  });

  test('a renewed certificate: new tunnels on a new connection, old ones go on', async () => {
    using lab = new HboneLab();
    const old = await lab.established();
    lab.clientTls.set(CLIENT_ID, lab.context(lab.ca.issue(CLIENT_ID)));
    await lab.established();
    expect(lab.client.stats).toMatchObject({ connections: 2, tunnels: 2 });
    old.send('still here');
    await lab.t.until(() => old.received.toString() === 'still here');
    old.tunnel!.reset();
    await lab.t.until(() => lab.client.stats.connections === 1);
  });

  test('a source that leaves: waiting tunnels fail, open ones go on; if it comes back it dials anew', async () => {
    using lab = new HboneLab();
    const open = await lab.established();
    const other = lab.hop({ sourceUid: 'uid-other' });
    const elsewhere = await lab.established('127.0.0.1:80', other);
    const waiting = lab.open('127.0.0.1:80', lab.hop({ fromAddress: '127.0.0.2' }));
    lab.client.retireSource(lab.hop().sourceUid);
    expect(waiting.failure).toMatchObject({ flag: 'CONNECT' });
    open.send('still here');
    await lab.t.until(() => open.received.toString() === 'still here');
    await lab.established();
    expect(lab.client.stats.connections).toBe(3);
    open.tunnel!.reset();
    await lab.t.until(() => lab.client.stats.connections === 2);
    expect(elsewhere.isDone).toBe(false);
  });

  test('a source that left and is deleted later: what it still had open is cut', async () => {
    using lab = new HboneLab();
    const open = await lab.established();
    lab.client.retireSource(lab.hop().sourceUid);
    lab.client.closeSource(lab.hop().sourceUid);
    await lab.t.until(() => open.isDone);
    expect(open.events.at(-1)).toContain('reset');
    expect(lab.client.stats).toEqual({ connections: 0, tunnels: 0, waitingTunnels: 0 });
  });

  test('an expired certificate: no new tunnels, though a connection is there', async () => {
    using lab = new HboneLab();
    const old = await lab.established();
    lab.clientTls.set(CLIENT_ID, null);
    expect(lab.open().failure!.flag).toBe('IDENTITY_ERROR');
    expect(old.isDone).toBe(false);
  });

  test('an idle connection is released', async () => {
    using lab = new HboneLab({ client: { idleTimeoutMs: 600, pingIntervalMs: 300, pingTimeoutMs: 5000 } });
    const tunnel = await lab.established();
    await lab.t.for(1000);
    expect(lab.client.stats.connections).toBe(1);
    tunnel.tunnel!.reset();
    await lab.t.until(() => lab.client.stats.connections === 0);
    await lab.t.until(() => lab.server.connectionCount === 0);
    await lab.established();
  });
});

describe('no connection', () => {
  test('refused: CONNECT', async () => {
    using lab = new HboneLab();
    const closed = new ListeningSocket();
    closed.close();
    const tunnels = openMany(lab, 3, lab.hop({ address: { address: '127.0.0.1', port: closed.port } }));
    await lab.t.until(() => tunnels.every((one) => one.isDone));
    expect(tunnels.map((one) => one.failure!.flag)).toEqual(['CONNECT', 'CONNECT', 'CONNECT']);
    expect(lab.client.stats).toEqual({ connections: 0, tunnels: 0, waitingTunnels: 0 });
  });

  test('no answer to SYN: NETWORK_POLICY, with a hint', async () => {
    using lab = new HboneLab({ client: { connectTimeoutMs: 300 } });
    // a full backlog drops SYNs
    using deaf = new ListeningSocket(0);
    const fillers = Array.from({ length: 4 }, () =>
      net.connect(deaf.port, '127.0.0.1').on('error', () => {}),
    );
    await lab.t.for(100);
    const client = lab.open('127.0.0.1:80', lab.hop({ address: { address: '127.0.0.1', port: deaf.port } }));
    await lab.t.until(() => client.isDone);
    expect(client.failure!.flag).toBe('NETWORK_POLICY');
    expect(client.failure!.message).toContain('NetworkPolicy');
    for (const one of fillers) one.destroy();
  });

  test('no answer to a CONNECT: fails in time; other tunnels of the connection live on', async () => {
    let asked = 0;
    using lab = new HboneLab({
      client: { tunnelTimeoutMs: 1000 },
      decide: (request, handler) => {
        if (asked++ === 0) accept(request, handler);
      },
    });
    const open = lab.open();
    await lab.t.until(() => open.has('established'));
    const late = lab.open();
    await lab.t.until(() => late.isDone);
    expect(late.events).toEqual(['failed']);
    expect(late.failure).toMatchObject({ flag: 'CONNECT' });
    expect(late.failure!.message).toContain('no answer to CONNECT within 1000 ms');
    await lab.t.until(() => lab.acceptor.handlers[1]!.has('reset'));
    await lab.t.for(1_050);
    expect(open.events).toEqual(['established']);
    expect(lab.client.stats).toMatchObject({ connections: 1, tunnels: 1 });
  });

  test('a peer that has gone without a word is found out by the first CONNECT that it leaves unanswered', async () => {
    using lab = new HboneLab({ client: { tunnelTimeoutMs: 500 } });
    using wire = await WireProxy.to(lab.listening.port);
    const hop = lab.hop({ address: { address: '127.0.0.1', port: wire.port } });
    const open = await lab.established('127.0.0.1:80', hop);
    wire.stop();
    const late = lab.open('127.0.0.1:80', hop);
    await lab.t.until(() => late.isDone);
    expect(late.failure!.message).toContain('no answer to CONNECT');
    await lab.t.until(() => open.isDone);
    expect(lab.client.stats.connections).toBe(0);
  });

  test('no connection in time: fails, and gives back what it was to carry; nothing is left behind', async () => {
    using lab = new HboneLab({ client: { tunnelTimeoutMs: 100 } });
    using silent = new ListeningSocket();
    const hop = lab.hop({ address: { address: '127.0.0.1', port: silent.port } });
    const late = lab.open('127.0.0.1:80', hop);
    await lab.t.until(() => late.isDone);
    expect(late.failure).toMatchObject({
      flag: 'CONNECT',
      message: 'no connection to the peer within 100 ms',
    });
    expect(lab.client.stats).toMatchObject({ tunnels: 0, waitingTunnels: 0 });
  });

  test('no answer to the ClientHello: TLS_FAILURE', async () => {
    using lab = new HboneLab();
    using silent = new ListeningSocket();
    const tlsOptions = { ...lab.context(lab.ca.issue(CLIENT_ID)), handshakeTimeoutMs: 200 };
    lab.clientTls.set(CLIENT_ID, tlsOptions);
    const client = lab.open(
      '127.0.0.1:80',
      lab.hop({ address: { address: '127.0.0.1', port: silent.port } }),
    );
    await lab.t.until(() => client.isDone);
    expect(client.failure!.flag).toBe('TLS_FAILURE');
  });

  test('no HTTP/2 after TLS: H2_HANDSHAKE_FAILURE', async () => {
    using lab = new HboneLab({ client: { pingIntervalMs: 100 } });
    const server = tls.createServer({
      ...nodeTlsOptions(lab.ca.issue(SERVER_ID)),
      requestCert: true,
      ALPNProtocols: ['h2'],
    });
    const sockets: tls.TLSSocket[] = [];
    server.on('secureConnection', (socket) => sockets.push(socket.on('error', () => {})));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    const client = lab.open('127.0.0.1:80', lab.hop({ address: { address: '127.0.0.1', port } }));
    await lab.t.until(() => client.isDone);
    expect(client.failure!.flag).toBe('H2_HANDSHAKE_FAILURE');
    for (const socket of sockets) socket.destroy();
    server.close();
  });
});

test('a peer that allows no streams is not dialled without end; each tunnel fails by its own try', async () => {
  using lab = new HboneLab();
  let dialled = 0;
  const server = http2.createSecureServer({
    ...nodeTlsOptions(lab.ca.issue(SERVER_ID)),
    requestCert: true,
    settings: { maxConcurrentStreams: 0 },
  });
  server.on('sessionError', () => {});
  server.on('secureConnection', () => dialled++);
  // Streams that came before our ACK of its SETTINGS.
  server.on('stream', (stream) => stream.close(http2.constants.NGHTTP2_REFUSED_STREAM));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const hop = lab.hop({ address: { address: '127.0.0.1', port } });
  try {
    for (let i = 0; i < 3; i++) {
      const client = lab.open('127.0.0.1:80', hop);
      await lab.t.until(() => client.isDone);
      expect(client.events).toEqual(['failed']);
    }
    expect(dialled).toBeLessThanOrEqual(6);
  } finally {
    server.close();
  }
});

describe('a peer that falls silent', () => {
  test('the client drops it: its tunnels are reset, the next one finds a new connection', async () => {
    using lab = new HboneLab({ client: { pingIntervalMs: 400, pingTimeoutMs: 1500 } });
    using wire = await WireProxy.to(lab.listening.port);
    const hop = lab.hop({ address: { address: '127.0.0.1', port: wire.port } });
    const client = await lab.established('127.0.0.1:80', hop);
    await lab.t.for(2000);
    expect(client.isDone).toBe(false);
    wire.stop();
    const begun = Date.now();
    await lab.t.until(() => client.isDone);
    expect(Date.now() - begun).toBeGreaterThanOrEqual(1000);
    expect(client.events).toEqual(['established', 'reset']);
    expect(lab.client.stats.connections).toBe(0);
  });

  test('that is known to be gone: told at once by a PING out of turn; one that lives keeps its tunnels', async () => {
    let uid: string | null = 'server';
    using lab = new HboneLab({ peerAt: () => uid });
    using wire = await WireProxy.to(lab.listening.port);
    const mute = lab.hop({ address: { address: '127.0.0.1', port: wire.port } });
    const alive = await lab.established();
    const gone = await lab.established('127.0.0.1:80', mute);
    lab.client.peersChanged();
    await lab.established('127.0.0.1:80', mute);
    expect(lab.client.stats.connections).toBe(2);
    wire.stop();
    uid = null;
    const begun = Date.now();
    lab.client.peersChanged();
    await lab.t.until(() => gone.isDone);
    expect(Date.now() - begun).toBeLessThan(5_000);
    expect(gone.events).toEqual(['established', 'reset']);
    expect(alive.events).toEqual(['established']);
    // Its connection takes no new tunnels all the same.
    await lab.established();
    expect(lab.client.stats.connections).toBe(2);
  });

  test('the server closes it, and resets at the application', async () => {
    using lab = new HboneLab({ server: { pingIntervalMs: 400, pingTimeoutMs: 1500 } });
    using wire = await WireProxy.to(lab.listening.port);
    await lab.established('127.0.0.1:80', lab.hop({ address: { address: '127.0.0.1', port: wire.port } }));
    const [server] = lab.acceptor.handlers as [TunnelRecorder];
    wire.stop();
    await lab.t.until(() => server.isDone);
    expect(server.events).toEqual(['reset']);
    expect(lab.server.connectionCount).toBe(0);
  });

  test('bytes are a sign of life too: an ACK may be late behind much DATA', async () => {
    using lab = new HboneLab({ client: { pingIntervalMs: 100, pingTimeoutMs: 1000 }, decide: accept });
    using wire = await WireProxy.to(lab.listening.port);
    const hop = lab.hop({ address: { address: '127.0.0.1', port: wire.port } });
    const client = await lab.established('127.0.0.1:80', hop);
    const [server] = lab.acceptor.handlers as [TunnelRecorder];
    // PINGs do not get there any more
    wire.stopUp();
    for (let i = 0; i < 50; i++) {
      server.send('x');
      await lab.t.for(30);
    }
    expect(client.events).toEqual(['established']);
    await lab.t.until(() => client.isDone);
    expect(client.events).toEqual(['established', 'reset']);
    expect(client.receivedBytes).toBe(50);
  });
});

test('100 stalled tunnels hold bounded memory while others of the same connection run on', async () => {
  using lab = new HboneLab({ decide: accept, client: { maxTunnelsPerConnection: 110 } });
  const stalled = openMany(lab, 100);
  await allEstablished(lab, stalled);
  for (const server of lab.acceptor.handlers) server.isStalled = true;
  const block = Buffer.alloc(8 * 1024 * 1024, 'x');
  for (const one of stalled) one.send(block);
  await lab.t.for(200);
  const held = lab.acceptor.handlers.reduce((sum, one) => sum + one.unconsumedBytes, 0);
  expect(held).toBeLessThanOrEqual(16 * 1024 * 1024);
  expect(lab.acceptor.handlers.every((one) => one.receivedBytes <= 65_536)).toBe(true);
  const running = await lab.established();
  expect(lab.client.stats.connections).toBe(1);
  running.send(block, true);
  const server = lab.acceptor.handlers.at(-1)!;
  await lab.t.until(() => server.has('end'));
  expect(server.receivedBytes).toBe(block.length);
});
