import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { expect, test } from '@jest/globals';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { Echo, Recorder, TestReactor } from '../../test/support/reactor.js';
import { MAX_RESERVE_BYTES } from './slab-pool.js';
import { AGAIN, type Connection, EOF } from './types.js';

const HOST = '127.0.0.1';
const CONNECT = { connectTimeoutMs: 10_000 };

interface Pair extends Disposable {
  readonly t: TestReactor;
  /** Our side, accepted. */
  readonly connection: Connection;
  readonly recorder: Recorder;
  /** node:net's side. */
  readonly socket: net.Socket;
}

/** An accepted connection and the node:net socket at its other end. */
async function connectedPair(
  makeRecorder: (t: TestReactor) => Recorder = (t) => new Recorder(t.reactor),
  t = new TestReactor(),
): Promise<Pair> {
  const listening = new ListeningSocket();
  const recorder = makeRecorder(t);
  let connection: Connection | null = null;
  const onAccepted = (accepted: Connection) => {
    connection = accepted;
    return recorder;
  };
  const listener = t.reactor.listen({ fd: listening.fd }, { onAccepted });
  const socket = net.connect({ port: listening.port, host: HOST, allowHalfOpen: true });
  socket.on('error', () => {});
  await t.until(() => connection !== null && socket.readyState === 'open');
  listener.stop();
  listening.close();
  const dispose = () => {
    socket.destroy();
    t[Symbol.dispose]();
  };
  return { t, connection: connection!, recorder, socket, [Symbol.dispose]: dispose };
}

async function nodeServer(
  onSocket: (socket: net.Socket) => void,
): Promise<{ server: net.Server; to: { address: string; port: number } }> {
  const server = net.createServer({ allowHalfOpen: true }, onSocket);
  server.listen(0, HOST);
  await once(server, 'listening');
  return { server, to: { address: HOST, port: (server.address() as net.AddressInfo).port } };
}

/** The loop has nothing to do: a turn sleeps for as long as it may. */
function expectIdle(t: TestReactor): void {
  for (let i = 0; i < 20; i++) t.reactor.turn(0);
  const begin = performance.now();
  t.reactor.turn(60);
  expect(performance.now() - begin).toBeGreaterThan(50);
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

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
