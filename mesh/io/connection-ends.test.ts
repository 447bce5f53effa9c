import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { expect, test } from '@jest/globals';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { connectedPair, expectIdle, nodeServer, sha256 } from '../../test/support/pair.js';
import { Echo, Recorder, TestReactor } from '../../test/support/reactor.js';
import { type Connection, EOF } from './types.js';

const HOST = '127.0.0.1';
const CONNECT = { connectTimeoutMs: 10_000 };

test('a paused connection hears no bytes, does not spin on HUP, and goes on where it was', async () => {
  using pair = await connectedPair();
  const { t, connection, recorder, socket } = pair;
  connection.pauseReading();
  socket.end('for later');
  await t.for(20);
  expect(recorder.received.length).toBe(0);
  expectIdle(t);
  connection.shutdownWrite();
  await t.during(once(socket.resume(), 'end'));
  expectIdle(t);
  connection.resumeReading();
  await t.until(() => recorder.hasEnded);
  expect(recorder.received.toString()).toBe('for later');
  expectIdle(t);
  expect(recorder.events).toEqual(['end']);
});

test('a reset is told to a paused connection too', async () => {
  using pair = await connectedPair();
  const { t, connection, recorder, socket } = pair;
  connection.pauseReading();
  await t.for(10);
  socket.resetAndDestroy();
  await t.until(() => recorder.isClosed);
  expect(recorder.error).toMatchObject({ code: 'RESET', data: { errno: 'ECONNRESET' } });
  expect(connection.isOpen).toBe(false);
});

test('bytes before a reset are delivered, then the reset', async () => {
  using pair = await connectedPair();
  const { t, recorder, socket } = pair;
  await new Promise((resolve) => socket.write('last words', resolve));
  socket.resetAndDestroy();
  await t.until(() => recorder.isClosed);
  expect(recorder.received.toString()).toBe('last words');
  expect(recorder.error!.code).toBe('RESET');
});

test('half-open peers: their end leaves our direction open, also when it comes first', async () => {
  using pair = await connectedPair();
  const { t, connection, recorder, socket } = pair;
  socket.end('question');
  await t.until(() => recorder.hasEnded);
  expectIdle(t);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  connection.write(Buffer.from('answer'), 0, 6);
  await t.until(() => chunks.length > 0);
  connection.shutdownWrite();
  await t.during(once(socket, 'end'));
  expectIdle(t);
  expect(connection.isOpen).toBe(true);
  connection.close();
  expect(t.reactor.native.stats().connections).toBe(0);
});

test('close sends what is pending to a slow reader, then FIN; reset sends RST at once', async () => {
  using pair = await connectedPair();
  const { t, connection, recorder, socket } = pair;
  socket.pause();
  const payload = randomBytes(10 << 20);
  connection.write(payload, 0, payload.length);
  socket.write('unread by us');
  await t.for(10);
  connection.close();
  expect(t.reactor.size).toBe(0);
  const hash = createHash('sha256');
  socket.on('data', (chunk) => hash.update(chunk)).resume();
  await t.during(once(socket, 'end'));
  expect(hash.digest('hex')).toBe(sha256(payload));
  expect(recorder.isClosed).toBe(false);
  socket.end();
  await t.until(() => t.reactor.native.stats().connections === 0);

  using other = await connectedPair();
  const failed = once(other.socket, 'error');
  other.connection.reset();
  expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' });
  expect(other.t.reactor.counters).toMatchObject({ accepted: 1, closed: 1, reset: 1, failed: 0 });
});

test('a closed connection whose peer never ends is cut after the linger time', async () => {
  using pair = await connectedPair(undefined, new TestReactor({ lingerMs: 60 }));
  const failed = once(pair.socket, 'error');
  pair.socket.write('x');
  pair.connection.close();
  expect(pair.t.reactor.native.stats().connections).toBe(1);
  const writing = setInterval(() => pair.socket.write('x'), 5);
  await pair.t.during(failed);
  clearInterval(writing);
  expect(pair.t.reactor.native.stats().connections).toBe(0);
});

test('the linger time counts from the last byte taken: a slow reader gets everything', async () => {
  using pair = await connectedPair(undefined, new TestReactor({ lingerMs: 400 }));
  const { t, connection, socket } = pair;
  const payload = randomBytes(12 << 20);
  connection.write(payload, 0, payload.length);
  connection.close();
  const hash = createHash('sha256');
  let ended = false;
  socket.on('data', (chunk) => {
    hash.update(chunk);
    socket.pause();
  });
  socket.on('end', () => {
    ended = true;
  });
  const begin = performance.now();
  // At most a chunk of 64 KiB each 5 ms.
  const reading = setInterval(() => socket.resume(), 5);
  await t.until(() => ended || socket.destroyed);
  clearInterval(reading);
  expect(performance.now() - begin).toBeGreaterThan(800);
  expect(ended).toBe(true);
  expect(hash.digest('hex')).toBe(sha256(payload));
});

test('a closed connection that has bytes left when its engine goes is reset: never a FIN for a cut transfer', async () => {
  using client = new TestReactor();
  using listening = new ListeningSocket();
  const t = new TestReactor();
  const to = { address: HOST, port: listening.port };
  const recorder = new Recorder(client.reactor);
  client.reactor.connect({ to, ...CONNECT }, recorder);
  let isClosed = false;
  const onAccepted = (connection: Connection) => {
    // More than the kernel takes of a peer that does not read.
    const payload = Buffer.alloc(14 << 20);
    expect(connection.write(payload, 0, payload.length)).toBeGreaterThan(0);
    connection.close();
    isClosed = true;
    return new Recorder(t.reactor);
  };
  t.reactor.listen({ fd: listening.fd }, { onAccepted });
  await t.until(() => isClosed);
  t.reactor.dispose();
  await client.until(() => recorder.isClosed || recorder.hasEnded);
  expect(recorder.hasEnded).toBe(false);
});

test('an owner that has let go hears nothing, not even of a failure found before', async () => {
  using t = new TestReactor();
  const recorder = new Recorder(t.reactor);
  // An address of another family: the dial fails at once, which is told in the next turn.
  const to = { address: '127.0.0.1', port: 9 };
  t.reactor.connect({ to, fromAddress: '::1', ...CONNECT }, recorder).reset();
  const kept = new Recorder(t.reactor);
  t.reactor.connect({ to, fromAddress: '::1', ...CONNECT }, kept);
  await t.until(() => kept.isClosed);
  expect(recorder.events).toEqual([]);
});

test('closed connections take calls and do nothing', async () => {
  using pair = await connectedPair();
  const { t, connection } = pair;
  connection.reset();
  connection.reset();
  connection.close();
  connection.flush();
  connection.shutdownWrite();
  connection.pauseReading();
  connection.resumeReading();
  expect(connection.read(Buffer.alloc(8), 0, 8)).toBe(EOF);
  expect(connection.write(Buffer.alloc(8), 0, 8)).toBe(0);
  expect(connection.reserve(100).bytes.length).toBeGreaterThanOrEqual(100);
  expect(connection.peerCertificate()).toBeNull();
  expect(connection.pendingBytes).toBe(0);
  expectIdle(t);
});

test('connections closed while their events are queued hear nothing', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  const connections: Connection[] = [];
  let heard = 0;
  const handler = new Recorder(t.reactor);
  handler.onReadable = () => {
    heard++;
    // All others have an event in this same turn.
    for (const connection of connections) connection.reset();
  };
  const onAccepted = (connection: Connection) => {
    connections.push(connection);
    return handler;
  };
  t.reactor.listen({ fd: listening.fd }, { onAccepted });
  const sockets = Array.from({ length: 20 }, () => net.connect(listening.port, HOST));
  for (const socket of sockets) socket.on('error', () => {});
  await t.until(() => connections.length === 20 && sockets.every((socket) => socket.readyState === 'open'));
  for (const socket of sockets) socket.write('x');
  await new Promise((resolve) => setTimeout(resolve, 50));
  await t.until(() => heard > 0);
  await t.for(20);
  expect(heard).toBe(1);
  expect(t.reactor.native.stats().connections).toBe(1);
  for (const socket of sockets) socket.destroy();
});

test('an exception in a callback resets that connection only, and is counted and logged', async () => {
  using pair = await connectedPair((t) => {
    const recorder = new Echo(t.reactor);
    recorder.onReadable = () => {
      throw new Error('a bug');
    };
    return recorder;
  });
  using good = await connectedPair((t) => new Echo(t.reactor), pair.t);
  const failed = once(pair.socket, 'error');
  pair.socket.write('x');
  expect((await pair.t.during(failed))[0]).toMatchObject({ code: 'ECONNRESET' });
  expect(pair.t.reactor.counters.exceptions).toBe(1);
  expect(pair.t.logged).toEqual(['exception in a callback: a bug']);
  // Its owner hears of it, to let go of whatever hangs on the connection.
  expect(pair.recorder.events).toEqual(['closed HANDLER_FAILED']);
  good.socket.write('still here');
  await good.t.until(() => good.recorder.received.toString() === 'still here');
});

test('exceptions in timers, end-of-turn work and accepts do not end the loop', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  const boom = () => {
    throw new Error('boom');
  };
  t.reactor.setTimer(1, boom);
  t.reactor.atEndOfTurn(boom);
  t.reactor.listen({ fd: listening.fd }, { onAccepted: boom });
  const socket = net.connect(listening.port, HOST);
  await t.during(once(socket, 'error'));
  await t.until(() => t.reactor.counters.exceptions === 3);
});

test('an exception in an accept is told to whoever has taken the connection by then', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  const recorder = new Recorder(t.reactor);
  const onAccepted = (connection: Connection) => {
    connection.handler = recorder;
    throw new Error('boom');
  };
  t.reactor.listen({ fd: listening.fd }, { onAccepted });
  const socket = net.connect(listening.port, HOST);
  await t.during(once(socket, 'error'));
  await t.until(() => recorder.events.length > 0);
  expect(recorder.events).toEqual(['closed HANDLER_FAILED']);
  // The listener.
  expect(t.reactor.native.stats().connections).toBe(1);
});

test('a dial given up before it is connected leaves nothing', async () => {
  using t = new TestReactor();
  const { server, to } = await nodeServer((socket) => socket.on('error', () => {}));
  const recorder = new Recorder(t.reactor);
  t.reactor.connect({ to, ...CONNECT }, recorder).reset();
  t.reactor.connect({ to, ...CONNECT }, recorder).close();
  await t.for(20);
  expect(recorder.events).toEqual([]);
  expect(t.reactor.native.stats().connections).toBe(0);
  server.close();
});
