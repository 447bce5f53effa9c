import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from '@jest/globals';
import type { EchoCommand, EchoReport } from '../../test/support/echo-worker.js';
import { ListeningSocket } from '../../test/support/listening-socket.js';
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
