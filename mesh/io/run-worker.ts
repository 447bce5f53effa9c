import { getHeapStatistics } from 'node:v8';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { EpollReactor, type ReactorOptions } from './reactor.js';
import type { IoLog } from './types.js';

/** What the pool tells a worker at its start. */
export interface WorkerStart {
  readonly engineId: number;
  readonly index: number;
  readonly data: unknown;
}

/** What a worker's setup works with. */
export interface WorkerContext<Data, FromWorker> {
  readonly reactor: EpollReactor;
  /** Place in the pool, from 0; a worker that was started again has its predecessor's. */
  readonly index: number;
  readonly data: Data;
  /** Sends to the pool's `onMessage`. */
  readonly post: (message: FromWorker) => void;
}

export interface WorkerProgram<Data, ToWorker, FromWorker> {
  /** The thread never returns to Node's loop: the log must write by itself (mesh/log does). */
  readonly log: (data: Data, index: number) => IoLog;
  readonly reactorOptions?: Omit<ReactorOptions, 'engineId'>;
  /** Wires the worker; returns what takes the messages of the main thread. */
  readonly setup: (context: WorkerContext<Data, FromWorker>) => (message: ToWorker) => void;
}

const IDLE_CHECK_MS = 1000;
/** The reactor's longest sleep and the tunnel's timers make a dozen in an idle second. */
const IDLE_TURNS = 40;
const GARBAGE_BYTES = 8 * 1024 * 1024;

/**
 * Collects what the start, and later a time of load, has left once it is over. V8 does so by itself in a thread that idles in Node's loop,
 * which a worker never does. It takes 10 to 30 ms and costs some compiled code its assumptions (20 to 50 functions are compiled anew), so it
 * waits until it is worth it.
 */
class IdleCollector {
  readonly #reactor: EpollReactor;
  #turns = 0;
  #liveBytes = -GARBAGE_BYTES;

  constructor(reactor: EpollReactor) {
    this.#reactor = reactor;
  }

  start(): void {
    this.#reactor.setTimer(IDLE_CHECK_MS, () => this.#check());
  }

  #check(): void {
    const { turns } = this.#reactor.counters;
    const isIdle = turns - this.#turns <= IDLE_TURNS;
    this.#turns = turns;
    if (isIdle && usedBytes() - this.#liveBytes >= GARBAGE_BYTES) {
      globalThis.gc?.();
      this.#liveBytes = usedBytes();
    }
    this.start();
  }
}

function usedBytes(): number {
  return getHeapStatistics().used_heap_size;
}

/**
 * The whole life of a worker thread that WorkerPool started: builds the reactor, calls setup, and turns until the engine is stopped. Neither
 * promises nor Node's own timers and sockets run in it.
 */
export function runWorker<Data, ToWorker, FromWorker>(
  program: WorkerProgram<Data, ToWorker, FromWorker>,
): void {
  const port = parentPort;
  if (port === null) throw new Error('runWorker is for threads that WorkerPool started');
  const { engineId, index, data } = workerData as WorkerStart & { data: Data };
  let onMessage: (message: ToWorker) => void = () => {};
  const drain = () => {
    for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
      const { message } = got;
      reactor.guard(() => onMessage(message));
    }
  };
  const reactor = new EpollReactor(
    { ...program.reactorOptions, engineId },
    { log: program.log(data, index), onWake: drain },
  );
  onMessage = program.setup({ reactor, index, data, post: (message) => port.postMessage(message) });
  drain();
  new IdleCollector(reactor).start();
  reactor.run();
  process.exit(0);
}
