import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { expect, test } from '@jest/globals';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { connectedPair, expectIdle, nodeServer, sha256 } from '../../test/support/pair.js';
import { Echo, Recorder, TestReactor } from '../../test/support/reactor.js';
import { MAX_RESERVE_BYTES } from './slab-pool.js';
import { AGAIN, type Connection, EOF } from './types.js';

const HOST = '127.0.0.1';
const CONNECT = { connectTimeoutMs: 10_000 };

test('accepts, echoes and ends with its peer', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  const echo = new Echo(t.reactor);
  const seen: Connection[] = [];
  const onAccepted = (connection: Connection) => {
    seen.push(connection);
    return echo;
  };
  t.reactor.listen({ fd: listening.fd }, { onAccepted });
  const socket = net.connect(listening.port, HOST);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  await t.during(once(socket, 'connect'));
  const own = { address: HOST, port: socket.localPort };
  socket.end('hello');
  await t.during(once(socket, 'close'));
  expect(Buffer.concat(chunks).toString()).toBe('hello');
  expect(echo.events).toEqual(['end']);
  expect(seen[0]).toMatchObject({
    local: { address: HOST, port: listening.port },
    remote: own,
    isOpen: false,
  });
  expect(t.reactor.size).toBe(1);
});

test('dials, writes before it is connected, half-closes', async () => {
  using t = new TestReactor();
  const { server, to } = await nodeServer((socket) => {
    socket.on('data', (chunk) => socket.write(chunk));
    socket.on('end', () => socket.end('bye'));
  });
  const recorder = new Recorder(t.reactor);
  const connection = t.reactor.connect({ to, fromAddress: '127.0.0.9', ...CONNECT }, recorder);
  expect(connection.blocked).toBe(true);
  connection.write(Buffer.from('early '), 0, 6);
  const slab = connection.reserve(4);
  slab.end += slab.bytes.write('bird', slab.end);
  await t.until(() => recorder.received.length >= 10);
  expect(connection.local.address).toBe('127.0.0.9');
  connection.shutdownWrite();
  await t.until(() => recorder.hasEnded);
  expect(recorder.received.toString()).toBe('early birdbye');
  connection.close();
  expect(t.reactor.size).toBe(0);
  server.close();
});

test('carries megabytes both ways unchanged through back-pressure', async () => {
  using pair = await connectedPair((t) => new Echo(t.reactor));
  const payload = randomBytes(8 << 20);
  const hash = createHash('sha256');
  pair.socket.on('data', (chunk) => hash.update(chunk));
  pair.socket.end(payload);
  await pair.t.during(once(pair.socket, 'close'));
  expect(hash.digest('hex')).toBe(sha256(payload));
});

test('blocked and onDrained tell a slow reader, and nothing is lost', async () => {
  using pair = await connectedPair();
  const { t, connection, recorder, socket } = pair;
  socket.pause();
  const payload = randomBytes(12 << 20);
  expect(connection.write(payload, 0, payload.length)).toBeGreaterThan(0);
  expect(connection.blocked).toBe(true);
  expect(connection.pendingBytes).toBe(t.reactor.native.stats().pendingBytes);
  const hash = createHash('sha256');
  let count = 0;
  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    count += chunk.length;
  });
  socket.resume();
  await t.until(() => count === payload.length);
  expect(hash.digest('hex')).toBe(sha256(payload));
  await t.until(() => recorder.events.includes('drained'));
  expect(recorder.events).toEqual(['drained']);
  expect(connection.blocked).toBe(false);
  expectIdle(t);
});

test('a peer that never reads costs at most maxPendingBytes', async () => {
  using pair = await connectedPair(undefined, new TestReactor({ maxPendingBytes: 1 << 20 }));
  const { t, connection, recorder, socket } = pair;
  socket.pause();
  const chunk = Buffer.alloc(1 << 20);
  for (let i = 0; i < 64 && connection.isOpen; i++) connection.write(chunk, 0, chunk.length);
  expect(recorder.isClosed).toBe(false);
  await t.until(() => recorder.isClosed);
  expect(recorder.error).toMatchObject({ code: 'WRITE_OVERFLOW' });
  expect(t.reactor.native.stats()).toEqual({ connections: 0, pendingBytes: 0 });
});

test('slabs keep order with writes, grow, and go out when they are full', async () => {
  using pair = await connectedPair();
  const { t, connection, socket } = pair;
  const received: Buffer[] = [];
  socket.on('data', (chunk) => received.push(chunk));
  const sent: Buffer[] = [];
  const put = (bytes: Buffer) => {
    const slab = connection.reserve(bytes.length);
    expect(slab.bytes.length - slab.end).toBeGreaterThanOrEqual(bytes.length);
    slab.end += bytes.copy(slab.bytes, slab.end);
    sent.push(bytes);
  };
  for (const size of [10, 9000, 20_000, MAX_RESERVE_BYTES, 1, MAX_RESERVE_BYTES - 1]) put(randomBytes(size));
  const direct = randomBytes(5000);
  connection.write(direct, 1000, 4000);
  sent.push(direct.subarray(1000, 4000));
  put(randomBytes(100));
  const all = Buffer.concat(sent);
  await t.until(() => received.reduce((sum, chunk) => sum + chunk.length, 0) === all.length);
  expect(Buffer.concat(received).equals(all)).toBe(true);
  expect(() => connection.reserve(MAX_RESERVE_BYTES + 1)).toThrow(RangeError);
});

test('a refused connect, an unreachable one and one without an answer each have their code', async () => {
  using t = new TestReactor();
  const codeOf = async (address: string, port: number, connectTimeoutMs: number) => {
    const recorder = new Recorder(t.reactor);
    t.reactor.connect({ to: { address, port }, connectTimeoutMs }, recorder);
    expect(recorder.isClosed).toBe(false);
    await t.until(() => recorder.isClosed);
    return recorder.error;
  };
  const gone = new ListeningSocket();
  gone.close();
  expect(await codeOf(HOST, gone.port, 5000)).toMatchObject({
    code: 'CONNECT_FAILED',
    data: { errno: 'ECONNREFUSED' },
  });
  expect(await codeOf('255.255.255.255', 1, 5000)).toMatchObject({ code: 'CONNECT_FAILED' });
  // A full backlog does not answer.
  using full = new ListeningSocket(0);
  const fillers = [0, 1, 2].map(() => net.connect(full.port, HOST).on('error', () => {}));
  await t.for(50);
  expect(await codeOf(HOST, full.port, 80)).toMatchObject({ code: 'CONNECT_TIMEOUT' });
  for (const filler of fillers) filler.destroy();
  expect(t.reactor.native.stats().connections).toBe(0);
});

test('a listener that stops leaves its socket open; a refused accept is reset', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  const first = t.reactor.listen({ fd: listening.fd }, { onAccepted: () => null });
  const socket = net.connect(listening.port, HOST);
  expect((await t.during(once(socket, 'error')))[0]).toMatchObject({ code: 'ECONNRESET' });
  first.stop();
  const waiting = net.connect(listening.port, HOST);
  await t.during(once(waiting, 'connect'));
  const echo = new Echo(t.reactor);
  t.reactor.listen({ fd: listening.fd }, { onAccepted: () => echo });
  waiting.write('hello');
  await t.until(() => echo.received.length === 5);
  waiting.destroy();
});

test('reads stop at the length asked for and go on by level', async () => {
  using pair = await connectedPair((t) => {
    const recorder = new Recorder(t.reactor);
    recorder.onReadable = (connection) => {
      const bytes = Buffer.alloc(16);
      const count = connection.read(bytes, 3, 7);
      if (count > 0) recorder.received = Buffer.concat([recorder.received, bytes.subarray(3, 3 + count)]);
      else recorder.events.push(count === EOF ? 'end' : `${count === AGAIN}`);
    };
    return recorder;
  });
  pair.socket.end('twenty bytes exactly');
  await pair.t.until(() => pair.recorder.hasEnded);
  expect(pair.recorder.received.toString()).toBe('twenty bytes exactly');
  const bytes = Buffer.alloc(16);
  expect(() => pair.connection.read(bytes, 10, 7)).toThrow(/outside/);
  expect(() => pair.connection.read(bytes, -1, 7)).toThrow(/outside/);
  expect(() => pair.connection.write(bytes, 10, 17)).toThrow(/outside/);
  expect(() => pair.connection.write(bytes, 3, 2)).toThrow(/outside/);
});
