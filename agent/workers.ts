import type { WorkerPool } from '../mesh/io/index.js';
import type { LogLevel } from '../mesh/log/index.js';
import type { Store, StoreUpdate } from '../mesh/store/index.js';
import type { CapturedPod, CaptureHandles } from './capture/index.js';
import type { FromWorker, ToWorker, WorkerPod, WorkerReport } from './tunnel/index.js';

/** How long the main thread waits for a worker's answer before it goes on without. */
const answerTimeoutMs = 2_000;
/** After the drain deadline: the process is to end within 1 s of it, even if a worker has died meanwhile. */
const drainedTimeoutMs = 500;

/**
 * The workers as the main thread sees them: what each must know is told here, and told again from the beginning to one that
 * was restarted.
 */
export class Workers {
  readonly #pool: WorkerPool<ToWorker, FromWorker>;
  readonly #count: number;
  readonly #store: Store;
  readonly #pods = new Map<string, { readonly pod: CapturedPod; readonly handles: CaptureHandles }>();
  readonly #contexts = new Map<string, number>();
  readonly #awaited = new Map<string, (message: FromWorker) => void>();
  #logLevel: LogLevel | null = null;
  #nextRequest = 1;

  constructor(
    options: { readonly count: number },
    deps: { readonly pool: WorkerPool<ToWorker, FromWorker>; readonly store: Store },
  ) {
    this.#count = options.count;
    this.#pool = deps.pool;
    this.#store = deps.store;
  }

  applyStore(update: StoreUpdate): void {
    this.#toAll({ kind: 'store', update });
  }

  setContext(identity: string, context: number | null): void {
    if (context === null) this.#contexts.delete(identity);
    else this.#contexts.set(identity, context);
    this.#toAll({ kind: 'certificate', identity, context });
  }

  setLogLevel(level: LogLevel): void {
    this.#logLevel = level;
    this.#toAll({ kind: 'log-level', level });
  }

  telemetryTaken(worker: number): void {
    this.#pool.post(worker, { kind: 'telemetry-taken' });
  }

  addPod(pod: CapturedPod, handles: CaptureHandles): void {
    this.#pods.set(pod.pod.uid, { pod, handles });
    for (let worker = 0; worker < this.#count; worker++)
      this.#pool.post(worker, { kind: 'pod', pod: podFor(pod, worker), handles });
  }

  /** Resolves once no worker uses the pod's descriptors for anything new. */
  async releasePod(uid: string, reason: 'unenrolled' | 'deleted'): Promise<void> {
    if (!this.#pods.delete(uid)) return;
    await this.#ask(`released ${uid}`, { kind: 'release', uid, reason });
  }

  async drain(deadlineMs: number): Promise<void> {
    await this.#ask('drained', { kind: 'drain', deadlineMs }, deadlineMs + drainedTimeoutMs);
  }

  /** Per worker; null for one that did not answer. */
  async reports(withConnections = false): Promise<(WorkerReport | null)[]> {
    const request = this.#nextRequest++;
    const answers = await this.#ask(`report ${request}`, { kind: 'report', request, withConnections });
    return answers.map((answer) => (answer?.kind === 'report' ? answer.report : null));
  }

  /** A worker was started again: it knows nothing. */
  resend(worker: number): void {
    if (this.#logLevel !== null) this.#pool.post(worker, { kind: 'log-level', level: this.#logLevel });
    this.#pool.post(worker, { kind: 'store', update: this.#store.snapshot() });
    for (const [identity, context] of this.#contexts)
      this.#pool.post(worker, { kind: 'certificate', identity, context });
    for (const { pod, handles } of this.#pods.values())
      this.#pool.post(worker, { kind: 'pod', pod: podFor(pod, worker), handles });
  }

  /** For answers; others are ignored. */
  onMessage(worker: number, message: FromWorker): void {
    const key = answerKey(message);
    if (key !== null) this.#awaited.get(`${worker} ${key}`)?.(message);
  }

  #toAll(message: ToWorker): void {
    this.#pool.post('all', message);
  }

  async #ask(key: string, message: ToWorker, timeoutMs = answerTimeoutMs): Promise<(FromWorker | null)[]> {
    const answers = Array.from({ length: this.#count }, (_, worker) =>
      this.#answer(`${worker} ${key}`, timeoutMs),
    );
    this.#toAll(message);
    return await Promise.all(answers);
  }

  #answer(key: string, timeoutMs: number): Promise<FromWorker | null> {
    return new Promise((resolve) => {
      const done = (message: FromWorker | null) => {
        clearTimeout(timer);
        this.#awaited.delete(key);
        resolve(message);
      };
      const timer = setTimeout(() => done(null), timeoutMs);
      this.#awaited.set(key, done);
    });
  }
}

function answerKey(message: FromWorker): string | null {
  switch (message.kind) {
    case 'released':
      return `released ${message.uid}`;
    case 'drained':
      return 'drained';
    case 'report':
      return `report ${message.request}`;
    default:
      return null;
  }
}

function podFor(captured: CapturedPod, worker: number): WorkerPod {
  const { pod, netnsFd, netnsCookie } = captured;
  return {
    uid: pod.uid,
    name: pod.name,
    namespace: pod.namespace,
    serviceAccount: pod.serviceAccount,
    netnsFd,
    netnsCookie,
    outboundFd: captured.outboundFds[worker]!,
    inboundFd: captured.inboundFds[worker]!,
    hboneFd: captured.hboneFds[worker]!,
  };
}
