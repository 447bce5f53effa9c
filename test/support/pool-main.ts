import { once } from 'node:events';
import { WorkerPool } from '../../mesh/io/index.js';
import type { EchoCommand, EchoReport } from './echo-worker.js';
import { ListeningSocket } from './listening-socket.js';

/** A program with workers that sleep in their engines; ends in the way its argument names. Prints its port when it is ready. */
const listening = new ListeningSocket();
let readyWorkers = 0;
const pool = new WorkerPool<EchoCommand, EchoReport>(
  { entry: new URL('./echo-worker.js', import.meta.url), workers: 2, workerData: null },
  {
    log: { warn: () => {}, error: () => {} },
    onMessage: () => {
      if (++readyWorkers === 2) ready();
    },
    onWorkerRestarted: () => {},
  },
);
pool.start();
pool.post(0, { kind: 'listen', fd: listening.fd });
pool.post('all', { kind: 'ping' });
// Something that keeps the process up, as a server does.
const keepAlive = setInterval(() => {}, 1000);

function ready(): void {
  process.stdout.write(`${listening.port}\n`);
  void once(process.stdin, 'data').then(() => endBy(process.argv[2]!));
}

function endBy(way: string): void {
  if (way === 'exit') process.exit(7);
  if (way === 'throw')
    setImmediate(() => {
      throw new Error('uncaught in main');
    });
  if (way === 'reject') void Promise.reject(new Error('unhandled in main'));
  if (way === 'stop')
    void pool
      .stop()
      .then(() => clearInterval(keepAlive))
      .then(() => process.stdin.destroy());
  // 'signal': the test sends it.
}
