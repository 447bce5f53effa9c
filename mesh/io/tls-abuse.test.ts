import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { Echo, TestReactor } from '../../test/support/reactor.js';
import { nodeTlsOptions, TestCa } from '../../test/support/test-ca.js';
import {
  clientMaterial,
  dialNode,
  dialOurs,
  HOST,
  serverMaterial,
  TlsServer,
} from '../../test/support/tls-peers.js';
import { type Tap, Wire } from '../../test/support/wire.js';
import { EngineTlsContexts } from './tls-context.js';

const tlsContexts = new EngineTlsContexts();

test('a TLS stream cut without close_notify is RESET, not an end', async () => {
  using server = new TlsServer();
  let isCut = false;
  const wire = new Wire(server.port, { toServer: (chunk) => (isCut ? 'fin' : chunk) });
  const socket = dialNode(await wire.listen());
  await server.t.during(once(socket, 'secureConnect'));
  socket.write('before');
  await server.t.until(() => server.accepted[0]?.received.length === 6);
  isCut = true;
  socket.write('cut');
  const error = await server.firstClosed();
  expect(error).toMatchObject({ code: 'RESET', message: expect.stringContaining('without close_notify') });
  expect(server.accepted[0]!.hasEnded).toBe(false);
  wire.close();
});

test.each([
  ['truncated', (chunk: Buffer) => chunk.subarray(0, -4)],
  ['flipped', (chunk: Buffer) => Buffer.concat([chunk.subarray(0, -1), Buffer.of(chunk.at(-1)! ^ 1)])],
  ['no TLS at all', () => Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')],
  ['an oversized header', () => Buffer.concat([Buffer.of(23, 3, 3, 255, 255), Buffer.alloc(1000)])],
])(
  'a broken record (%s) on an open connection is RESET, behind the bytes before it',
  async (what, breakIt) => {
    using server = new TlsServer();
    let isBroken = false;
    const wire = new Wire(server.port, { toServer: (chunk) => (isBroken ? breakIt(chunk) : chunk) });
    const socket = dialNode(await wire.listen());
    await server.t.during(once(socket, 'secureConnect'));
    socket.write('before');
    await server.t.until(() => server.accepted[0]?.received.length === 6);
    isBroken = true;
    socket.write('broken record');
    if (what === 'truncated') {
      await server.t.for(20);
      isBroken = false;
      socket.write('the next');
    }
    expect(await server.firstClosed()).toMatchObject({ code: 'RESET' });
    expect(server.accepted[0]!.received.toString()).toBe('before');
    wire.close();
  },
);

test('an alert from the peer ends an open connection as RESET with its name', async () => {
  // The server does not know our root. In TLS 1.3 our side of the handshake is done before it says so.
  using server = new TlsServer({
    material: { ...serverMaterial, trustBundle: [new TestCa('another').root] },
  });
  const context = tlsContexts.create(clientMaterial);
  const { recorder } = dialOurs(server.t, server.port, context);
  await server.t.until(() => recorder.isClosed);
  expect(recorder.events).toEqual(['connected', 'failed', 'closed RESET']);
  expect(recorder.error!.message).toContain('alert unknown ca');
  tlsContexts.release(context);
});

/** Bytes each way of a whole handshake with one byte of data, as a node client and our server make it. */
async function handshakeBytes(server: TlsServer): Promise<{ toServer: number; toClient: number }> {
  const count = { toServer: 0, toClient: 0 };
  const counting =
    (way: 'toServer' | 'toClient'): Tap =>
    (chunk) => {
      count[way] += chunk.length;
      return chunk;
    };
  const wire = new Wire(server.port, { toServer: counting('toServer'), toClient: counting('toClient') });
  const socket = dialNode(await wire.listen());
  socket.write('x');
  await server.t.during(once(socket, 'data'));
  socket.destroy();
  wire.close();
  return count;
}

test.each(['toServer', 'toClient'] as const)(
  'RST or FIN at every stage of the handshake (%s)',
  async (way) => {
    using server = new TlsServer();
    const total = (await handshakeBytes(server))[way];
    for (let stop = 0; stop <= total; stop += Math.ceil(total / 24)) {
      for (const end of [null, 'fin'] as const) {
        const before = server.accepted.length;
        let didEnd = false;
        const tap: Tap = (chunk, offset) => {
          if (didEnd || offset >= stop) {
            didEnd = true;
            return end;
          }
          return chunk.subarray(0, stop - offset);
        };
        const wire = new Wire(server.port, { [way]: tap });
        const socket = dialNode(await wire.listen());
        socket.write('x');
        if (stop === 0 && way === 'toServer' && end === null) await server.t.for(10);
        else await server.t.until(() => server.accepted.length > before);
        await server.t.for(5);
        socket.destroy();
        wire.close();
      }
    }
    await server.t.until(
      () => server.t.reactor.native.stats().connections === 1,
      'all connections to be gone',
    );
    expect(server.t.reactor.counters.exceptions).toBe(0);
  },
);

test('handshakes have a deadline on both sides', async () => {
  using server = new TlsServer({ handshakeTimeoutMs: 50 });
  const silent = net.connect(server.port, HOST).on('error', () => {});
  expect(await server.firstClosed()).toMatchObject({ code: 'HANDSHAKE_TIMEOUT' });
  silent.destroy();
  using mute = new ListeningSocket();
  const context = tlsContexts.create(clientMaterial);
  const { recorder } = dialOurs(server.t, mute.port, context, 50);
  await server.t.until(() => recorder.isClosed);
  expect(recorder.error).toMatchObject({ code: 'HANDSHAKE_TIMEOUT' });
  tlsContexts.release(context);
});

test('handshakes under way are limited per listener: more wait in its backlog, and are served when there is room', async () => {
  using server = new TlsServer({
    handshakeTimeoutMs: 150,
    t: new TestReactor({ handshakesPerListener: 4, acceptsPerTurn: 1 }),
  });
  const begun = Array.from({ length: 10 }, () => net.connect(server.port, HOST).on('error', () => {}));
  await server.t.for(60);
  expect(server.t.reactor.counters.accepted).toBe(4);
  const honest = dialNode(server.port);
  honest.write('x');
  await server.t.during(once(honest, 'data'));
  expect(server.t.reactor.counters.accepted).toBeGreaterThan(8);
  for (const socket of begun) socket.destroy();
  // Done and failed ones count no more.
  for (let i = 0; i < 6; i++) {
    const socket = dialNode(server.port);
    socket.write('x');
    await server.t.during(once(socket, 'data'));
  }
});

test('a flood of KeyUpdates ends the connection; a few are fine', async () => {
  using server = new TlsServer();
  const { t } = server;
  const folder = mkdtempSync(join(tmpdir(), 'culvert-keyupdate-'));
  const { cert, key } = nodeTlsOptions(clientMaterial);
  writeFileSync(join(folder, 'crt'), cert);
  writeFileSync(join(folder, 'key'), key);
  const client = spawn('openssl', [
    ...['s_client', '-connect', `${HOST}:${server.port}`, '-alpn', 'h2', '-tls1_3'],
    ...['-cert', join(folder, 'crt'), '-key', join(folder, 'key')],
  ]);
  client.stdin.on('error', () => {});
  try {
    await t.until(() => server.accepted[0]?.isConnected === true);
    for (let i = 0; i < 10; i++) {
      client.stdin.write('K\n');
      await t.for(5);
    }
    client.stdin.write('hello\n');
    await t.until(() => server.accepted[0]!.received.toString() === 'hello\n');
    for (let i = 0; i < 60 && !server.accepted[0]!.isClosed; i++) {
      client.stdin.write('k\n');
      await t.for(5);
    }
    expect(await server.firstClosed()).toMatchObject({
      code: 'RESET',
      message: expect.stringContaining('TLS control messages'),
    });
  } finally {
    client.kill();
    rmSync(folder, { recursive: true });
  }
});

test('without TLS material at hand, connections are reset', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  t.reactor.listen({ fd: listening.fd, tls: () => null }, { onAccepted: () => new Echo(t.reactor) });
  const socket = net.connect(listening.port, HOST);
  expect((await t.during(once(socket, 'error')))[0]).toMatchObject({ code: 'ECONNRESET' });
});

test('an end asked for before the handshake is done comes after it, with the early bytes', async () => {
  using server = new TlsServer();
  const context = tlsContexts.create(clientMaterial);
  const { connection, recorder } = dialOurs(server.t, server.port, context);
  connection.pauseReading();
  connection.write(Buffer.from('all of it'), 0, 9);
  connection.shutdownWrite();
  await server.t.until(() => server.accepted[0]?.hasEnded === true);
  expect(server.accepted[0]!.received.toString()).toBe('all of it');
  await sleep(20);
  await server.t.for(20);
  expect(recorder.received.length).toBe(0);
  connection.resumeReading();
  await server.t.until(() => recorder.hasEnded);
  expect(recorder.received.toString()).toBe('all of it');
  connection.close();
  tlsContexts.release(context);
});
