import { messageOf } from '../common/errors.js';
import { TokenBucket } from '../common/token-bucket.js';
import { Backoff, type BackoffOptions, KubeError } from '../kube/index.js';
import type { Log } from '../log/index.js';

export interface WriteQueueOptions extends BackoffOptions {
  /** Writes of all keys together. */
  readonly perSecond: number;
  readonly burst: number;
  /** At a time. */
  readonly concurrency: number;
  /** A key that was not written for so long may be written at once again. */
  readonly quietMs: number;
}

export const WRITE_QUEUE_DEFAULTS: WriteQueueOptions = {
  perSecond: 20,
  burst: 50,
  concurrency: 4,
  firstMs: 200,
  mostMs: 60_000,
  quietMs: 120_000,
};

export interface WriteQueueDeps {
  /** Looks what must be written for the key *now*, and writes it. False: nothing had to be. What it throws is logged, and it is called again later. */
  readonly write: (key: string) => Promise<boolean>;
  readonly log: Log;
  /** [0, 1); default Math.random. */
  readonly random?: () => number;
}

interface Pace {
  readonly backoff: Backoff;
  notBeforeMs: number;
  lastMs: number;
}

const MAX_PACES = 4096;

/**
 * Keys that may have something to be written. A key is written by one call at a time, all keys within a rate; one that is written again and again (another
 * writer undoes it, or the API server refuses) waits longer each time, so that no loop of writes can hurt.
 */
export class WriteQueue {
  readonly #options: WriteQueueOptions;
  readonly #deps: WriteQueueDeps;
  readonly #bucket: TokenBucket;
  readonly #paces: Map<string, Pace>;
  readonly #ready: Set<string>;
  readonly #delayed: Map<string, NodeJS.Timeout>;
  readonly #running: Set<string>;
  /** Added while they run. */
  readonly #again: Set<string>;
  #pump: NodeJS.Timeout | null;
  /** Counts `clear`s: what began before one has no say after it. */
  #epoch: number;
  #written: number;
  #failed: number;

  constructor(options: WriteQueueOptions, deps: WriteQueueDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#bucket = new TokenBucket(options, { nowMs: () => performance.now() });
    this.#paces = new Map();
    this.#ready = new Set();
    this.#delayed = new Map();
    this.#running = new Set();
    this.#again = new Set();
    this.#pump = null;
    this.#epoch = 0;
    this.#written = 0;
    this.#failed = 0;
  }

  /** Keys that wait, for their turn or for another try. */
  get size(): number {
    return this.#ready.size + this.#delayed.size + this.#again.size;
  }

  /** Since the start. */
  get counts(): { readonly written: number; readonly failed: number } {
    return { written: this.#written, failed: this.#failed };
  }

  add(key: string): void {
    if (this.#running.has(key)) this.#again.add(key);
    else if (!this.#delayed.has(key)) this.#enqueue(key);
  }

  /** Forgets everything that waits; what is under way comes to its end, and that is all. */
  clear(): void {
    this.#epoch++;
    for (const timer of this.#delayed.values()) clearTimeout(timer);
    if (this.#pump !== null) clearTimeout(this.#pump);
    this.#pump = null;
    this.#delayed.clear();
    this.#ready.clear();
    this.#again.clear();
    this.#paces.clear();
  }

  #enqueue(key: string): void {
    const waitMs = (this.#paceOf(key)?.notBeforeMs ?? 0) - performance.now();
    if (waitMs > 0) {
      this.#delay(key, waitMs);
      return;
    }
    this.#ready.add(key);
    this.#schedule(0);
  }

  #delay(key: string, ms: number): void {
    const timer = setTimeout(() => {
      this.#delayed.delete(key);
      this.#ready.add(key);
      this.#run();
    }, ms);
    this.#delayed.set(key, timer);
  }

  #schedule(ms: number): void {
    this.#pump ??= setTimeout(() => {
      this.#pump = null;
      this.#run();
    }, ms);
  }

  #run(): void {
    for (const key of this.#ready) {
      if (this.#running.size >= this.#options.concurrency) return;
      if (!this.#bucket.tryTake()) {
        this.#schedule(Math.ceil(this.#bucket.waitMs));
        return;
      }
      this.#ready.delete(key);
      void this.#write(key, this.#epoch);
    }
  }

  async #write(key: string, epoch: number): Promise<void> {
    this.#running.add(key);
    try {
      if (await this.#deps.write(key)) {
        this.#written++;
        this.#slow(key, 0);
      } else this.#bucket.giveBack();
    } catch (error) {
      this.#failed++;
      const waitMs = this.#slow(
        key,
        error instanceof KubeError ? Number(error.data['retryAfterMs'] ?? 0) : 0,
      );
      this.#deps.log.warn(
        { key, reason: messageOf(error), waitMs: Math.round(waitMs) },
        'not written; tried again',
      );
      if (epoch === this.#epoch) this.#again.add(key);
    } finally {
      this.#running.delete(key);
      if (this.#again.delete(key)) this.#enqueue(key);
      this.#run();
    }
  }

  /** Gives for how long the key is not written now. */
  #slow(key: string, atLeastMs: number): number {
    const pace = this.#paceOf(key) ?? {
      backoff: new Backoff(this.#options, { random: this.#deps.random ?? Math.random }),
      notBeforeMs: 0,
      lastMs: 0,
    };
    const waitMs = pace.backoff.next(atLeastMs);
    pace.lastMs = performance.now();
    pace.notBeforeMs = pace.lastMs + waitMs;
    // Oldest first, for #prune.
    this.#paces.delete(key);
    this.#paces.set(key, pace);
    this.#prune();
    return waitMs;
  }

  #paceOf(key: string): Pace | undefined {
    const pace = this.#paces.get(key);
    if (pace === undefined || !this.#isQuiet(pace)) return pace;
    this.#paces.delete(key);
    return undefined;
  }

  #isQuiet({ notBeforeMs, lastMs }: Pace): boolean {
    return performance.now() > Math.max(notBeforeMs, lastMs + this.#options.quietMs);
  }

  #prune(): void {
    for (const [key, pace] of this.#paces) {
      if (this.#paces.size <= MAX_PACES && !this.#isQuiet(pace)) return;
      this.#paces.delete(key);
    }
  }
}
