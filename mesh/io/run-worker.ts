import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { EpollReactor, type ReactorOptions } from './reactor.js';
import type { IoLog } from './types.js';

/** Messages of the main thread may take this much of a turn; then connections get theirs. */
const messagesTurnMs = 2;

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
  let goesOn = false;
  const drain = () => {
    // The rest has its turn: a wake does not bring it forward.
    if (goesOn) return;
    const untilMs = performance.now() + messagesTurnMs;
    for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
      const { message } = got;
      reactor.guard(() => onMessage(message));
      if (performance.now() < untilMs) continue;
      goesOn = true;
      reactor.setTimer(0, () => {
        goesOn = false;
        drain();
      });
      return;
    }
  };
  const reactor = new EpollReactor(
    { ...program.reactorOptions, engineId },
    { log: program.log(data, index), onWake: drain },
  );
  onMessage = program.setup({ reactor, index, data, post: (message) => port.postMessage(message) });
  drain();
  reactor.run();
  process.exit(0);
}
