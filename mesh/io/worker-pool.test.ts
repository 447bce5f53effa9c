import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from '@jest/globals';
import { NativeEngines } from '../../native/index.js';
import type { EchoCommand, EchoReport } from '../../test/support/echo-worker.js';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { Recorder, TestReactor } from '../../test/support/reactor.js';
import type { Connection } from './types.js';
import { WorkerPool } from './worker-pool.js';

const ENTRY = new URL('../../test/support/echo-worker.js', import.meta.url);
const MAIN = fileURLToPath(new URL('../../test/support/pool-main.js', import.meta.url));
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

interface Fixture {
  readonly pool: WorkerPool<EchoCommand, EchoReport>;
  readonly port: number;
  readonly restarted: number[];
  readonly reports: EchoReport[];
}

function startPool(workers = 1): Fixture {
  const listening = new ListeningSocket();
  const restarted: number[] = [];
  const reports: EchoReport[] = [];
  const pool = new WorkerPool<EchoCommand, EchoReport>(
    { entry: ENTRY, workers, workerData: null },
    {
      log: { warn: () => {}, error: () => {} },
      onMessage: (_index, report) => reports.push(report),
      onWorkerRestarted: (index) => {
        restarted.push(index);
        pool.post(index, { kind: 'listen', fd: listening.fd });
      },
    },
  );
  cleanups.push(
    () => listening.close(),
    () => pool.stop(),
  );
  pool.start();
  pool.post(0, { kind: 'listen', fd: listening.fd });
  return { pool, port: listening.port, restarted, reports };
}

async function connected(port: number): Promise<net.Socket> {
  const socket = net.connect(port, '127.0.0.1');
  socket.on('error', () => {});
  cleanups.push(() => socket.destroy());
  await once(socket, 'connect');
  return socket;
}

async function echoOnce(socket: net.Socket, text: string): Promise<string> {
  socket.write(text);
  const [data] = (await once(socket, 'data')) as [Buffer];
  return data.toString();
}

async function waitFor(done: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!done()) {
    if (Date.now() > end) throw new Error('timed out');
    await sleep(5);
  }
}

test('a message wakes a sleeping worker, which serves and answers', async () => {
  const { pool, port, reports } = startPool();
  const socket = await connected(port);
  expect(await echoOnce(socket, 'one')).toBe('one');
  pool.post('all', { kind: 'ping' });
  await waitFor(() => reports.length === 1);
  expect(reports).toEqual([{ kind: 'pong', connections: 2 }]);
});

test.each(['throw', 'exit', 'terminate', 'spin'] as const)(
  'a worker that dies (%s) has its connections reset and is replaced',
  async (way) => {
    const { pool, port, restarted } = startPool();
    const socket = await connected(port);
    expect(await echoOnce(socket, 'one')).toBe('one');
    const failed = once(socket, 'error');
    if (way !== 'terminate') pool.post(0, { kind: way });
    if (way === 'spin') await sleep(50);
    if (way === 'terminate' || way === 'spin') await pool.terminate(0);
    const [error] = (await failed) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNRESET');
    await waitFor(() => restarted.length === 1);
    expect(pool.restarts).toBe(1);
    expect(pool.connectionsLost).toBe(1);
    expect(await echoOnce(await connected(port), 'two')).toBe('two');
  },
);

test('no client waits longer than 1 s when a worker dies under load', async () => {
  const { pool, port, restarted } = startPool();
  expect(await echoOnce(await connected(port), 'warm')).toBe('warm');
  const end = Date.now() + 3000;
  let longestMs = 0;
  let served = 0;
  const client = async () => {
    while (Date.now() < end) {
      const begin = performance.now();
      const socket = net.connect(port, '127.0.0.1');
      const outcome = await new Promise<string>((resolve) => {
        socket.on('data', () => resolve('data'));
        socket.on('error', () => resolve('error'));
        socket.on('close', () => resolve('close'));
        socket.write('x');
      });
      if (outcome === 'data') served++;
      longestMs = Math.max(longestMs, performance.now() - begin);
      socket.destroy();
      await sleep(2);
    }
  };
  const clients = Array.from({ length: 8 }, client);
  await sleep(700);
  pool.post(0, { kind: 'throw' });
  await Promise.all(clients);
  expect(restarted).toEqual([0]);
  expect(served).toBeGreaterThan(50);
  expect(longestMs).toBeLessThan(1000);
});

test('a worker that dies again and again is started at growing intervals', async () => {
  const { pool, restarted } = startPool();
  for (let deaths = 1; deaths <= 3; deaths++) {
    pool.post(0, { kind: 'exit' });
    await waitFor(() => restarted.length === deaths);
  }
  expect(pool.restarts).toBe(3);
});

test('a new worker for which there are no descriptors is tried again', async () => {
  const { pool, port, restarted } = startPool();
  expect(await echoOnce(await connected(port), 'one')).toBe('one');
  const { create } = NativeEngines.prototype;
  let failures = 2;
  NativeEngines.prototype.create = function (lingerMs) {
    if (failures-- > 0) throw new Error('epoll_create: EMFILE');
    return create.call(this, lingerMs);
  };
  cleanups.push(() => {
    NativeEngines.prototype.create = create;
  });
  pool.post(0, { kind: 'exit' });
  await waitFor(() => restarted.length === 1);
  expect(failures).toBe(-1);
  expect(pool.restarts).toBe(1);
  expect(await echoOnce(await connected(port), 'two')).toBe('two');
});

/**
 * A client that sends an echo more than the kernel's buffers hold, ends, and reads nothing until `finish`: the echo has closed then, with bytes
 * left. (On our engine: libuv tells of a reset as an end where unread bytes are there, too.)
 */
class StalledClient {
  readonly #t = new TestReactor();
  readonly #recorder: Recorder = new Recorder(this.#t.reactor);
  readonly #connection: Connection;

  constructor(port: number) {
    cleanups.push(() => this.#t[Symbol.dispose]());
    this.#recorder.onReadable = (connection) => connection.pauseReading();
    const to = { address: '127.0.0.1', port };
    this.#connection = this.#t.reactor.connect({ to, connectTimeoutMs: 10_000 }, this.#recorder);
  }

  async sendAll(): Promise<void> {
    await this.#t.until(() => this.#recorder.isConnected);
    this.#connection.write(Buffer.alloc(14 << 20, 'x'), 0, 14 << 20);
    this.#connection.shutdownWrite();
    await this.#t.until(() => this.#connection.pendingBytes === 0);
  }

  async finish(): Promise<string> {
    Reflect.deleteProperty(this.#recorder, 'onReadable');
    this.#connection.resumeReading();
    await this.#t.until(() => this.#recorder.isClosed || this.#recorder.hasEnded);
    return this.#recorder.events.at(-1)!;
  }
}

test('bytes of a closed connection that die with their worker are a reset, not an end', async () => {
  const { pool, port, reports, restarted } = startPool();
  const client = new StalledClient(port);
  await client.sendAll();
  await waitFor(() => {
    pool.post(0, { kind: 'ping' });
    return reports.at(-1)?.connections === 1;
  });
  await pool.terminate(0);
  await waitFor(() => restarted.length === 1);
  expect(await client.finish()).toBe('closed RESET');
});

test('bytes of a closed connection that die with their process are a reset, not an end', async () => {
  const { child, port } = await startMain('signal');
  const client = new StalledClient(port);
  await client.sendAll();
  await sleep(300);
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(await client.finish()).toBe('closed RESET');
});

async function startMain(way: string): Promise<{ child: ChildProcess; port: number }> {
  const child = spawn(process.execPath, [MAIN, way], { stdio: ['pipe', 'pipe', 'ignore'] });
  cleanups.push(() => child.kill('SIGKILL'));
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  return { child, port: Number(line.toString()) };
}

test.each([
  ['exit', 7, null],
  ['throw', 1, null],
  ['reject', 1, null],
  ['stop', 0, null],
  ['signal', null, 'SIGTERM'],
] as const)(
  'a process with sleeping workers ends within 1 s (%s), and resets what was open',
  async (way, code, signal) => {
    const { child, port } = await startMain(way);
    const socket = await connected(port);
    expect(await echoOnce(socket, 'one')).toBe('one');
    const failed = once(socket, 'error');
    const exited = once(child, 'exit');
    const begin = performance.now();
    if (way === 'signal') child.kill('SIGTERM');
    else child.stdin!.write('end\n');
    expect(await exited).toEqual([code, signal]);
    expect(performance.now() - begin).toBeLessThan(1000);
    const [error] = (await failed) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNRESET');
  },
);
