/**
 * The DNS thread as the main thread sees it: ordinary Node, apart from both the data path's workers and the main thread, so that a flood of questions
 * delays nothing but questions. It is started again when it dies, and told everything anew.
 */
import { Worker } from 'node:worker_threads';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log, LogLevel } from '../../mesh/log/index.js';
import type { Store, StoreUpdate } from '../../mesh/store/index.js';
import type { MetricFamily } from '../../mesh/telemetry/index.js';
import type { CapturedPod, CaptureHandles } from '../capture/index.js';
import type { DnsPod, DnsReport, DnsWorkerData, FromDns, ToDns } from './messages.js';
import { dnsMetricFamilies } from './metrics.js';

const answerTimeoutMs = 5_000;
const restartDelayMs = 500;

export interface DnsThreadOptions {
  /** The thread's program: it calls `runDnsThread`. */
  readonly entry: URL;
  readonly data: DnsWorkerData;
}

export interface DnsThreadDeps {
  readonly store: Store;
  readonly log: Log;
}

interface Awaited {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class DnsThread {
  readonly #options: DnsThreadOptions;
  readonly #deps: DnsThreadDeps;
  readonly #pods = new Map<string, ToDns & { kind: 'pod' }>();
  readonly #awaited = new Map<string, Awaited>();
  #worker: Worker | null = null;
  #restart: NodeJS.Timeout | null = null;
  #logLevel: LogLevel | null = null;
  #report: DnsReport = { cells: [], inFlight: 0, pods: [] };
  #restarts = 0;
  #stopped = false;

  constructor(options: DnsThreadOptions, deps: DnsThreadDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** For admin: not older than a second or two. */
  get report(): Omit<DnsReport, 'cells'> {
    return { inFlight: this.#report.inFlight, pods: this.#report.pods };
  }

  metrics(): MetricFamily[] {
    return [
      ...dnsMetricFamilies(this.#report.cells),
      {
        name: 'culvert_dns_thread_restarts_total',
        type: 'counter',
        help: 'Times that the DNS thread was started again after it died',
        samples: [{ labels: '', value: this.#restarts }],
      },
    ];
  }

  start(): void {
    const worker = new Worker(this.#options.entry, { workerData: this.#options.data });
    this.#worker = worker;
    worker.on('message', (message: FromDns) => this.#onMessage(message));
    worker.on('error', (error) =>
      this.#deps.log.error({ error: messageOf(error) }, 'the DNS thread has died'),
    );
    worker.once('exit', () => this.#onExit());
    if (this.#logLevel !== null) this.#post({ kind: 'log-level', level: this.#logLevel });
    this.#post({ kind: 'store', update: this.#deps.store.snapshot() });
    for (const message of this.#pods.values()) this.#post(message);
  }

  /** What captured pods ask is not answered from here on. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#restart !== null) clearTimeout(this.#restart);
    for (const { reject } of [...this.#awaited.values()]) reject(new Error('the DNS thread is stopped'));
    await this.#worker?.terminate();
  }

  applyStore(update: StoreUpdate): void {
    this.#post({ kind: 'store', update });
  }

  setLogLevel(level: LogLevel): void {
    this.#logLevel = level;
    this.#post({ kind: 'log-level', level });
  }

  /** Resolves when the pod's questions may come. Rejects when its listeners cannot be opened. */
  async addPod(pod: CapturedPod, handles: CaptureHandles): Promise<void> {
    const message = { kind: 'pod', pod: dnsPodOf(pod), handles } as const;
    this.#pods.set(pod.pod.uid, message);
    try {
      await this.#ask(`opened ${pod.pod.uid}`, message);
    } catch (error) {
      this.#pods.delete(pod.pod.uid);
      throw error;
    }
  }

  /** Resolves when nothing of the pod's namespace is used any more; never rejects. */
  async releasePod(uid: string): Promise<void> {
    if (!this.#pods.delete(uid) || this.#worker === null) return;
    await this.#ask(`released ${uid}`, { kind: 'release', uid }).catch((error: unknown) =>
      this.#deps.log.error({ uid, error: messageOf(error) }, 'the DNS thread did not let go of a pod'),
    );
  }

  #post(message: ToDns): void {
    this.#worker?.postMessage(message);
  }

  #ask(key: string, message: ToDns): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (finish: () => void) => {
        clearTimeout(timer);
        this.#awaited.delete(key);
        finish();
      };
      const timer = setTimeout(
        () => end(() => reject(new Error('the DNS thread is silent'))),
        answerTimeoutMs,
      );
      this.#awaited.set(key, {
        resolve: () => end(resolve),
        reject: (error) => end(() => reject(error)),
      });
      this.#post(message);
    });
  }

  #onMessage(message: FromDns): void {
    if (message.kind === 'report') {
      this.#report = message.report;
      return;
    }
    const waiting = this.#awaited.get(`${message.kind} ${message.uid}`);
    const failure = message.kind === 'opened' ? message.failure : '';
    if (failure === '') waiting?.resolve();
    else if (waiting !== undefined) waiting.reject(new Error(`names (port 15053): ${failure}`));
    else this.#deps.log.error({ uid: message.uid, failure }, 'listeners for names could not be opened again');
  }

  /** With the thread its sockets are gone, so nothing holds a released pod; questions are refused until it is back. */
  #onExit(): void {
    this.#worker = null;
    if (this.#stopped) return;
    for (const [key, { resolve }] of [...this.#awaited]) if (key.startsWith('released ')) resolve();
    this.#restarts++;
    this.#restart = setTimeout(() => this.start(), restartDelayMs);
  }
}

function dnsPodOf({ pod, netnsFd, netnsCookie, pid, addresses }: CapturedPod): DnsPod {
  const { uid, name, namespace, serviceAccount } = pod;
  return { uid, name, namespace, serviceAccount, netnsFd, netnsCookie, pid, addresses };
}
