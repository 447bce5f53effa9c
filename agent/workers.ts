import type { WorkerPool } from '../mesh/io/index.js';
import type { LogLevel } from '../mesh/log/index.js';
import { partsOf, type Store, type StoreUpdate, sizeOf } from '../mesh/store/index.js';
import type { CapturedPod, CaptureHandles } from './capture/index.js';
import type { DrainCounts, FromWorker, ToWorker, WorkerPod, WorkerReport } from './tunnel/index.js';

/** Reading one such message takes a worker 1 ms, 4 while its code is cold. */
const maxPartObjects = 50;
/** Put in force in one go, 3 ms. */
const maxChangedObjects = 1_000;
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
  readonly #pods = new Map<string, CapturedPod>();
  #handles: CaptureHandles | null = null;
  readonly #contexts = new Map<string, number>();
  readonly #awaited = new Map<string, (message: FromWorker | null) => void>();
  #revoked: ReadonlySet<string> | null = null;
  #logLevel: LogLevel | null = null;
  #drainingUntilMs: number | null = null;
  readonly #drainCounts = new Map<number, DrainCounts>();
  #nextRequest = 1;

  constructor(
    options: { readonly count: number },
    deps: { readonly pool: WorkerPool<ToWorker, FromWorker>; readonly store: Store },
  ) {
    this.#count = options.count;
    this.#pool = deps.pool;
    this.#store = deps.store;
  }

  /** `update` is in the store already. */
  applyStore(update: StoreUpdate): void {
    const objects = sizeOf(update);
    if (objects <= maxPartObjects) this.#toAll({ kind: 'store', update });
    // A worker takes a snapshot in beside what is in force; so many changes to what is in force would hold it up.
    else this.#postParts('all', objects > maxChangedObjects ? this.#store.snapshot() : update);
  }

  setContext(identity: string, context: number | null): void {
    if (context === null) this.#contexts.delete(identity);
    else this.#contexts.set(identity, context);
    this.#toAll({ kind: 'certificate', identity, context });
  }

  setRevoked(keys: ReadonlySet<string>): void {
    this.#revoked = keys;
    this.#toAll({ kind: 'revoked', keys });
  }

  /** True: workers can speak TLS for this identity. */
  hasContext(identity: string): boolean {
    return this.#contexts.has(identity);
  }

  setLogLevel(level: LogLevel): void {
    this.#logLevel = level;
    this.#toAll({ kind: 'log-level', level });
  }

  telemetryTaken(worker: number): void {
    this.#pool.post(worker, { kind: 'telemetry-taken' });
  }

  addPods(pods: readonly CapturedPod[], handles: CaptureHandles): void {
    this.#handles = handles;
    for (const pod of pods) this.#pods.set(pod.pod.uid, pod);
    for (let worker = 0; worker < this.#count; worker++) this.#postPods(worker, pods);
  }

  /**
   * Resolves once no worker uses the pod's descriptors for anything new, however long that takes: a number that is closed is soon another pod's
   * namespace, and a worker that stands still would dial there when it goes on.
   */
  async releasePod(uid: string, reason: 'unenrolled' | 'deleted'): Promise<void> {
    if (!this.#pods.delete(uid)) return;
    await this.#ask(`released ${uid}`, { kind: 'release', uid, reason }, Number.POSITIVE_INFINITY);
  }

  /**
   * Ends the workers' service: `onStopped` once none accepts any more (2 s at most), and the promise resolves when nothing is open, soon after the
   * deadline at the latest.
   */
  async drain(deadlineMs: number, onStopped: () => void = () => {}): Promise<void> {
    this.#drainingUntilMs = performance.now() + deadlineMs;
    const stopped = this.#answers('draining', answerTimeoutMs);
    const drained = this.#ask('drained', { kind: 'drain', deadlineMs }, deadlineMs + drainedTimeoutMs);
    await stopped;
    onStopped();
    await drained;
  }

  /** Nobody waits for an answer any more. */
  giveUpAnswers(): void {
    for (const give of [...this.#awaited.values()]) give(null);
  }

  /** Connections that the drain has ended so far. */
  get drainCounts(): DrainCounts {
    const sum = { ended: 0, reset: 0 };
    for (const { ended, reset } of this.#drainCounts.values()) {
      sum.ended += ended;
      sum.reset += reset;
    }
    return sum;
  }

  /** Per worker; null for one that did not answer. */
  async reports(withConnections = false): Promise<(WorkerReport | null)[]> {
    const request = this.#nextRequest++;
    const answers = await this.#ask(`report ${request}`, { kind: 'report', request, withConnections });
    return answers.map((answer) => (answer?.kind === 'report' ? answer.report : null));
  }

  /** A worker was started again: it knows nothing. */
  resend(worker: number): void {
    for (const [key, give] of [...this.#awaited]) if (key.startsWith(`${worker} `)) give(null);
    if (this.#drainingUntilMs !== null) {
      // Its connections ended with its predecessor, and it is to take no others.
      this.#pool.post(worker, { kind: 'drain', deadlineMs: 0 });
      return;
    }
    if (this.#logLevel !== null) this.#pool.post(worker, { kind: 'log-level', level: this.#logLevel });
    if (this.#revoked !== null) this.#pool.post(worker, { kind: 'revoked', keys: this.#revoked });
    this.#postParts(worker, this.#store.snapshot());
    for (const [identity, context] of this.#contexts)
      this.#pool.post(worker, { kind: 'certificate', identity, context });
    this.#postPods(worker, [...this.#pods.values()]);
  }

  /** For answers; others are ignored. */
  onMessage(worker: number, message: FromWorker): void {
    if (message.kind === 'drain-count') this.#drainCounts.set(worker, message);
    const key = answerKey(message);
    if (key !== null) this.#awaited.get(`${worker} ${key}`)?.(message);
  }

  #postParts(worker: number | 'all', update: StoreUpdate): void {
    const parts = partsOf(update, maxPartObjects);
    for (const [index, part] of parts.entries())
      this.#pool.post(worker, {
        kind: 'store-part',
        part,
        isFirst: index === 0,
        isLast: index === parts.length - 1,
      });
  }

  #postPods(worker: number, captured: readonly CapturedPod[]): void {
    if (this.#handles === null || captured.length === 0) return;
    const pods = captured.map((pod) => podFor(pod, worker, this.#count));
    this.#pool.post(worker, { kind: 'pods', pods, handles: this.#handles });
  }

  #toAll(message: ToWorker): void {
    this.#pool.post('all', message);
  }

  async #ask(key: string, message: ToWorker, timeoutMs = answerTimeoutMs): Promise<(FromWorker | null)[]> {
    const answers = this.#answers(key, timeoutMs);
    this.#toAll(message);
    return await answers;
  }

  /** Of every worker; null for one that is late or was started again. */
  #answers(key: string, timeoutMs: number): Promise<(FromWorker | null)[]> {
    return Promise.all(
      Array.from({ length: this.#count }, (_, worker) => this.#answer(`${worker} ${key}`, timeoutMs)),
    );
  }

  #answer(key: string, timeoutMs: number): Promise<FromWorker | null> {
    return new Promise((resolve) => {
      const done = (message: FromWorker | null) => {
        clearTimeout(timer ?? undefined);
        this.#awaited.delete(key);
        resolve(message);
      };
      // Node's timers go to 2^31 ms and take more for none.
      const timer = Number.isFinite(timeoutMs) ? setTimeout(() => done(null), timeoutMs) : null;
      this.#awaited.set(key, done);
    });
  }
}

function answerKey(message: FromWorker): string | null {
  switch (message.kind) {
    case 'released':
      return `released ${message.uid}`;
    case 'draining':
    case 'drained':
      return message.kind;
    case 'report':
      return `report ${message.request}`;
    default:
      return null;
  }
}

function podFor(captured: CapturedPod, worker: number, workers: number): WorkerPod {
  const mine = (fds: readonly number[]) => fds.filter((_, index) => index % workers === worker);
  const { pod, netnsFd, netnsCookie } = captured;
  return {
    uid: pod.uid,
    name: pod.name,
    namespace: pod.namespace,
    serviceAccount: pod.serviceAccount,
    isEastWestGateway: pod.isEastWestGateway,
    netnsFd,
    netnsCookie,
    outboundFds: mine(captured.outboundFds),
    inboundFds: mine(captured.inboundFds),
    hboneFds: mine(captured.hboneFds),
  };
}
