import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { expect, test } from '@jest/globals';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { Echo, Recorder, TestReactor } from '../../test/support/reactor.js';

const CONNECT = { connectTimeoutMs: 5000 };

async function nodeServer(
  onSocket: (socket: net.Socket) => void,
): Promise<{ server: net.Server; port: number }> {
  const server = net.createServer({ allowHalfOpen: true }, onSocket);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as net.AddressInfo).port };
}

test('accepts, echoes and ends with its peer', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  const echo = new Echo(t.reactor);
  t.reactor.listen(
    { fd: listening.fd },
    {
      onAccepted: (connection) => {
        expect(connection.local).toEqual({ address: '127.0.0.1', port: listening.port });
        expect(connection.remote.port).toBeGreaterThan(0);
        return echo;
      },
    },
  );
  const socket = net.connect(listening.port, '127.0.0.1');
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.end('hello');
  await t.during(once(socket, 'close'));
  expect(Buffer.concat(chunks).toString()).toBe('hello');
  expect(echo.events).toEqual(['end']);
  expect(t.reactor.size).toBe(1);
});

test('dials, writes early, half-closes', async () => {
  using t = new TestReactor();
  const { server, port } = await nodeServer((socket) => {
    socket.on('data', (chunk) => socket.write(chunk));
    socket.on('end', () => socket.end('bye'));
  });
  const recorder = new Recorder(t.reactor);
  const connection = t.reactor.connect({ to: { address: '127.0.0.1', port }, ...CONNECT }, recorder);
  expect(connection.blocked).toBe(true);
  connection.write(Buffer.from('early '), 0, 6);
  const slab = connection.reserve(4);
  slab.end += slab.bytes.write('bird', slab.end);
  await t.until(() => recorder.received.length >= 10);
  connection.shutdownWrite();
  await t.until(() => recorder.hasEnded);
  expect(recorder.received.toString()).toBe('early birdbye');
  expect(connection.local.address).toBe('127.0.0.1');
  connection.close();
  expect(t.reactor.size).toBe(0);
  server.close();
});

test('carries megabytes both ways unchanged through back-pressure', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  const echo = new Echo(t.reactor);
  t.reactor.listen({ fd: listening.fd }, { onAccepted: () => echo });
  const payload = randomBytes(8 << 20);
  const socket = net.connect(listening.port, '127.0.0.1');
  const hash = createHash('sha256');
  socket.on('data', (chunk) => hash.update(chunk));
  socket.end(payload);
  await t.during(once(socket, 'close'));
  expect(hash.digest('hex')).toBe(createHash('sha256').update(payload).digest('hex'));
});

test('a refused connect is told as CONNECT_FAILED', async () => {
  using t = new TestReactor();
  const recorder = new Recorder(t.reactor);
  const listening = new ListeningSocket();
  listening.close();
  t.reactor.connect({ to: { address: '127.0.0.1', port: listening.port }, ...CONNECT }, recorder);
  await t.until(() => recorder.isClosed);
  expect(recorder.error).toMatchObject({ code: 'CONNECT_FAILED', data: { errno: 'ECONNREFUSED' } });
});
