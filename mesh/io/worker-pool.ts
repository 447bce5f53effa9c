import { Worker } from 'node:worker_threads';
import { NativeEngines } from '../../native/index.js';
import { messageOf } from '../common/errors.js';
import type { WorkerStart } from './run-worker.js';
import type { IoLog } from './types.js';

/** A worker that lived shorter than this before it died is started again later, not at once. */
const STABLE_MS = 5000;
const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 5000;

/**
 * V8 lets the young generation of a busy thread grow to 48 MB and never shrinks it in a thread that does not idle in Node's own loop: the
 * pair of agents stood at 250 MB after two rounds of the bench, at 150 MB with this, and at no more after four. CPU is the same. Collecting by gc()
 * when a worker falls idle was tried: 15 MB less, but it throws compiled code away, and the next load paid 20 us more per connection.
 */
const resourceLimits = { maxYoungGenerationSizeMb: 6 } as const;

export interface WorkerPoolOptions {
  /** Script that calls `runWorker`. */
  readonly entry: URL;
  readonly workers: number;
  /** Given to each worker's setup; crosses by structured clone. */
  readonly workerData: unknown;
  /** How long a closed connection may take to send what is pending and see its peer's end. Default 5 s. */
  readonly lingerMs?: number;
}

export interface WorkerPoolDeps<FromWorker> {
  readonly log: IoLog;
  /** What a worker's `post` sent. */
  onMessage(index: number, message: FromWorker): void;
  /** A worker died and a new one stands in its place, knowing nothing: post it its state and its listeners. */
  onWorkerRestarted(index: number): void;
}

interface Member {
  readonly index: number;
  worker: Worker | null;
  engineId: number;
  startedAtMs: number;
  quickDeaths: number;
  retry: NodeJS.Timeout | null;
}

/**
 * The worker threads of a program and their life: main makes each worker's engine, so that it can take it down when the thread has died
 * (every connection is reset, every descriptor and SSL object freed) and start a new one. Nobody's exit has to wait for a sleeping worker.
 */
export class WorkerPool<ToWorker, FromWorker> {
  /** Workers started again after they died. */
  restarts = 0;
  /** Connections that died with their workers. */
  connectionsLost = 0;
  readonly #options: WorkerPoolOptions;
  readonly #deps: WorkerPoolDeps<FromWorker>;
  readonly #engines = new NativeEngines();
  readonly #members: Member[] = [];
  readonly #onExit = () => this.#stopEngines();
  #isStopping = false;

  constructor(options: WorkerPoolOptions, deps: WorkerPoolDeps<FromWorker>) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Starts all workers; they can be posted to at once. */
  start(): void {
    process.on('exit', this.#onExit);
    for (let index = 0; index < this.#options.workers; index++) {
      const member: Member = {
        index,
        worker: null,
        engineId: -1,
        startedAtMs: 0,
        quickDeaths: 0,
        retry: null,
      };
      this.#members.push(member);
      this.#startWorker(member);
    }
  }

  get size(): number {
    return this.#members.length;
  }

  /** Sends a message to one worker or to all and wakes them. A worker that is dead just now does not get it (`onWorkerRestarted` follows). */
  post(index: number | 'all', message: ToWorker): void {
    for (const member of index === 'all' ? this.#members : [this.#members[index]!]) {
      if (member.worker === null) continue;
      member.worker.postMessage(message);
      this.#engines.wake(member.engineId);
    }
  }

  /** Ends a worker's thread, whatever it is doing in JavaScript; the pool starts a new one. */
  async terminate(index: number): Promise<void> {
    const member = this.#members[index]!;
    if (member.worker === null) return;
    this.#engines.stop(member.engineId);
    await member.worker.terminate();
  }

  /** Ends all workers; what they still have open is reset. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const ended = this.#members.map(async ({ worker, retry }) => {
      clearTimeout(retry ?? undefined);
      await worker?.terminate();
    });
    this.#stopEngines();
    await Promise.all(ended);
    process.off('exit', this.#onExit);
  }

  /** Without this, a worker that sleeps in epoll_wait would keep a process that exits from ending. */
  #stopEngines(): void {
    for (const { engineId } of this.#members) this.#engines.stop(engineId);
  }

  #startWorker(member: Member): void {
    const { entry, workerData, lingerMs = 5000 } = this.#options;
    member.engineId = this.#engines.create(lingerMs);
    member.startedAtMs = performance.now();
    const start: WorkerStart = { engineId: member.engineId, index: member.index, data: workerData };
    const worker = new Worker(entry, { workerData: start, resourceLimits });
    member.worker = worker;
    worker.on('message', (message: FromWorker) => this.#deps.onMessage(member.index, message));
    worker.on('error', (error) => {
      this.#deps.log.error(
        { worker: member.index, err: error },
        `worker ${member.index} failed: ${error.message}`,
      );
    });
    worker.on('exit', (code) => this.#onWorkerExit(member, code));
  }

  #onWorkerExit(member: Member, code: number): void {
    member.worker = null;
    const lost = this.#engines.destroy(member.engineId);
    this.connectionsLost += lost;
    if (this.#isStopping) return;
    const livedMs = performance.now() - member.startedAtMs;
    member.quickDeaths = livedMs < STABLE_MS ? member.quickDeaths + 1 : 0;
    // The first death in a row is mended at once: clients are waiting.
    const delayMs =
      member.quickDeaths <= 1 ? 0 : Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** (member.quickDeaths - 2));
    this.#deps.log.error(
      { worker: member.index, code, connectionsLost: lost, restartInMs: delayMs },
      `worker ${member.index} died`,
    );
    if (delayMs === 0) this.#restart(member);
    else this.#restartLater(member, delayMs);
  }

  #restartLater(member: Member, delayMs: number): void {
    member.retry = setTimeout(() => this.#restart(member), delayMs);
  }

  #restart(member: Member): void {
    member.retry = null;
    try {
      this.#startWorker(member);
    } catch (error) {
      // An engine needs descriptors, and there may be none.
      this.#deps.log.error({ worker: member.index, err: error }, `cannot start worker: ${messageOf(error)}`);
      this.#restartLater(member, FIRST_DELAY_MS);
      return;
    }
    this.restarts++;
    this.#deps.onWorkerRestarted(member.index);
  }
}
