import { atWallTime, type Clock } from '../common/clock.js';
import { messageOf } from '../common/errors.js';
import type { Log } from '../log/index.js';
import { buildCsr } from './csr.js';
import { FetchQueue } from './fetch-queue.js';
import { generateKeyPair } from './keys.js';
import { parseSpiffeId } from './spiffe.js';
import type {
  CertificateListener,
  CertificateState,
  FetchedCertificate,
  FetchPriority,
  IdentityMaterial,
} from './types.js';
import { checkFetched, verifyChain } from './verify.js';

export interface CertificateManagerOptions {
  /** Default 8. */
  readonly maxConcurrentFetches?: number;
  /** A fetch that has not answered by then has failed. Default 30 s. */
  readonly fetchTimeoutMs?: number;
}

export interface CertificateManagerDeps {
  /** Asks the CA; the manager checks whatever comes back. */
  readonly fetch: (identity: string, csrPem: string) => Promise<FetchedCertificate>;
  readonly clock: Clock;
  readonly log: Log;
  /** [0, 1). Default Math.random. */
  readonly random?: () => number;
}

/** First wait after a failure 0.5-1 s, then doubling, each ±20 %, at most 150 s (hbone-and-wds.md 4). */
const BACKOFF = { firstMs: 500, spreadMs: 500, factor: 2, jitter: 0.2, maxMs: 150_000 } as const;
/** After a change of the trust bundle all renew, spread over this. */
const BUNDLE_RENEWAL_SPREAD_MS = 2_000;
/** Renewals are spread over this part of the lifetime before its half, so that a node's certificates do not all renew at once. */
const RENEWAL_JITTER = 0.1;

interface Entry {
  readonly identity: string;
  material: IdentityMaterial | null;
  isFetching: boolean;
  failures: number;
  backoffMs: number;
  lastError: string | null;
  /** Renewal or the end of a backoff; null while queued or fetching. */
  cancelTimer: (() => void) | null;
  cancelExpiry: (() => void) | null;
}

/**
 * Keeps one key pair and certificate for each identity that this node has: fetched when first wanted, renewed at half life with a new key, the old one
 * kept until it expires. All in memory; nothing here ever writes a key anywhere. Belongs to the main thread.
 */
export class CertificateManager {
  private readonly maxFetches: number;
  private readonly fetchTimeoutMs: number;
  private readonly deps: CertificateManagerDeps;
  private readonly random: () => number;
  private readonly entries = new Map<string, Entry>();
  private readonly queue = new FetchQueue();
  private readonly listeners = new Set<CertificateListener>();
  private fetching = 0;
  /** As the controller pushes them; null: each answer of the CA brings its own. */
  private roots: readonly Buffer[] | null = null;

  constructor(options: CertificateManagerOptions, deps: CertificateManagerDeps) {
    this.maxFetches = options.maxConcurrentFetches ?? 8;
    this.fetchTimeoutMs = options.fetchTimeoutMs ?? 30_000;
    this.deps = deps;
    this.random = deps.random ?? Math.random;
  }

  /** Hears every change from now on; returns how to stop. What is there already is in `current`. */
  subscribe(listener: CertificateListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** A workload of this identity is here. Throws IdentityError BAD_SPIFFE_ID. */
  prefetch(identity: string): void {
    this.want(identity, 'warm-up');
  }

  /** The valid certificate at hand, or null after asking for one ahead of all that is not urgent: a connection waits. Throws as `prefetch`. */
  require(identity: string): IdentityMaterial | null {
    return this.want(identity, 'live').material;
  }

  /** The valid certificate at hand. */
  current(identity: string): IdentityMaterial | null {
    return this.entries.get(identity)?.material ?? null;
  }

  /**
   * The mesh's roots (DER) from now on. Every certificate goes on with them at once, for new handshakes, and is renewed within 2 s: the CA may sign
   * with another root, and what the old one signed may not be trusted for long.
   */
  setTrustBundle(roots: readonly Buffer[]): void {
    if (this.roots !== null && sameBundle(this.roots, roots)) return;
    this.roots = roots;
    for (const entry of this.entries.values()) {
      if (entry.material === null || sameBundle(entry.material.trustBundle, roots)) continue;
      const { material } = entry;
      entry.material = { ...material, trustBundle: roots };
      this.tell((listener) => listener.onCertificate(entry.identity, entry.material!));
      this.renewSoon(entry);
    }
  }

  /** The controller is back: what waits after failures is asked for now. */
  retryNow(): void {
    for (const entry of this.entries.values()) {
      if (entry.failures === 0 || entry.cancelTimer === null) continue;
      entry.cancelTimer();
      entry.cancelTimer = null;
      this.enqueue(entry, entry.material === null ? 'warm-up' : 'background');
    }
  }

  /** The last workload of this identity has left. */
  forget(identity: string): void {
    const entry = this.entries.get(identity);
    if (entry === undefined) return;
    this.entries.delete(identity);
    this.queue.remove(identity);
    entry.cancelTimer?.();
    entry.cancelExpiry?.();
    if (entry.material !== null) this.tellGone(identity, 'forgotten');
  }

  /** Stops all timers and forgets everything, without a word to listeners. */
  close(): void {
    this.listeners.clear();
    for (const identity of [...this.entries.keys()]) this.forget(identity);
  }

  dump(): CertificateState[] {
    return [...this.entries.values()].map((entry) => ({
      identity: entry.identity,
      state: entry.material === null ? 'missing' : 'valid',
      activity: this.activityOf(entry),
      serial: entry.material?.serial ?? null,
      notBefore: entry.material === null ? null : new Date(entry.material.notBeforeMs).toISOString(),
      notAfter: entry.material === null ? null : new Date(entry.material.notAfterMs).toISOString(),
      failures: entry.failures,
      lastError: entry.lastError,
    }));
  }

  private activityOf(entry: Entry): CertificateState['activity'] {
    if (entry.isFetching) return 'fetching';
    if (this.queue.has(entry.identity)) return 'queued';
    return entry.failures > 0 ? 'backing-off' : 'idle';
  }

  private want(identity: string, priority: FetchPriority): Entry {
    let entry = this.entries.get(identity);
    if (entry === undefined) {
      parseSpiffeId(identity);
      entry = newEntry(identity);
      this.entries.set(identity, entry);
    }
    const isWaiting = entry.isFetching || entry.cancelTimer !== null;
    if (entry.material === null && !isWaiting) this.enqueue(entry, priority);
    return entry;
  }

  private enqueue(entry: Entry, priority: FetchPriority): void {
    this.queue.add(entry.identity, priority);
    this.startFetches();
  }

  private startFetches(): void {
    while (this.fetching < this.maxFetches) {
      const identity = this.queue.take();
      if (identity === null) return;
      this.fetching++;
      const entry = this.entries.get(identity)!;
      entry.isFetching = true;
      void this.fetch(entry).finally(() => {
        this.fetching--;
        this.startFetches();
      });
    }
  }

  /** Never rejects. A forgotten entry is in the map no more: its answer is dropped. */
  private async fetch(entry: Entry): Promise<void> {
    const keys = generateKeyPair();
    const { roots } = this;
    try {
      const fetched = await this.withDeadline(
        this.deps.fetch(entry.identity, buildCsr(keys, entry.identity)),
      );
      entry.isFetching = false;
      if (this.entries.get(entry.identity) !== entry) return;
      const hasNewRoots = roots !== null && roots !== this.roots;
      this.adopt(
        entry,
        this.withBundle(checkFetched(entry.identity, keys, fetched, this.deps.clock.nowMs())),
      );
      if (hasNewRoots) this.renewSoon(entry);
    } catch (error) {
      entry.isFetching = false;
      if (this.entries.get(entry.identity) === entry) this.backOff(entry, error);
    }
  }

  /** What was pushed counts, unless it does not know the new leaf's root yet: then the push is on its way. */
  private withBundle(material: IdentityMaterial): IdentityMaterial {
    if (this.roots === null) return material;
    try {
      verifyChain(material.certificateChain, this.roots, this.deps.clock.nowMs());
      return { ...material, trustBundle: this.roots };
    } catch {
      const known = material.trustBundle.filter((root) => !this.roots!.some((other) => other.equals(root)));
      return { ...material, trustBundle: [...this.roots, ...known] };
    }
  }

  private renewSoon(entry: Entry): void {
    if (entry.isFetching || entry.failures > 0 || this.queue.has(entry.identity)) return;
    entry.cancelTimer?.();
    this.fetchIn(entry, BUNDLE_RENEWAL_SPREAD_MS * this.random());
  }

  /** By the wall clock or by time passed, whichever comes first: the clock may jump either way. */
  private fetchIn(entry: Entry, delayMs: number): void {
    const { clock } = this.deps;
    const due = (): void => {
      entry.cancelTimer?.();
      entry.cancelTimer = null;
      this.enqueue(entry, entry.material === null ? 'warm-up' : 'background');
    };
    const cancelPassed = clock.setTimer(delayMs, due);
    const cancelReached = atWallTime(clock, clock.nowMs() + delayMs, due);
    entry.cancelTimer = () => {
      cancelPassed();
      cancelReached();
    };
  }

  private withDeadline(answer: Promise<FetchedCertificate>): Promise<FetchedCertificate> {
    return new Promise((resolve, reject) => {
      const cancel = this.deps.clock.setTimer(this.fetchTimeoutMs, () =>
        reject(new Error(`the CA did not answer within ${this.fetchTimeoutMs} ms`)),
      );
      answer.then(resolve, reject).finally(cancel);
    });
  }

  private adopt(entry: Entry, material: IdentityMaterial): void {
    const nowMs = this.deps.clock.nowMs();
    entry.material = material;
    entry.failures = 0;
    entry.lastError = null;
    entry.cancelExpiry?.();
    entry.cancelExpiry = atWallTime(this.deps.clock, material.notAfterMs, () => this.expire(entry));
    const lifetimeMs = material.notAfterMs - material.notBeforeMs;
    const renewAtMs = material.notBeforeMs + lifetimeMs * (0.5 - RENEWAL_JITTER * this.random());
    this.fetchLater(entry, renewAtMs - nowMs);
    this.deps.log.info(
      { identity: entry.identity, notAfter: new Date(material.notAfterMs) },
      'certificate in use',
    );
    this.tell((listener) => listener.onCertificate(entry.identity, material));
  }

  private backOff(entry: Entry, error: unknown): void {
    entry.backoffMs =
      entry.failures === 0
        ? BACKOFF.firstMs + BACKOFF.spreadMs * this.random()
        : entry.backoffMs * BACKOFF.factor;
    entry.backoffMs = Math.min(entry.backoffMs, BACKOFF.maxMs);
    entry.failures++;
    entry.lastError = messageOf(error);
    const jitter = entry.failures === 1 ? 1 : 1 + BACKOFF.jitter * (2 * this.random() - 1);
    const delayMs = Math.min(entry.backoffMs * jitter, BACKOFF.maxMs);
    this.fetchLater(entry, delayMs);
    const { identity, failures, lastError } = entry;
    this.deps.log.warn(
      { identity, failures, retryInMs: Math.round(delayMs), reason: lastError },
      'certificate could not be fetched',
    );
  }

  private fetchLater(entry: Entry, delayMs: number): void {
    // never at once: a CA that hands out certificates past their half would be asked in a loop
    this.fetchIn(entry, Math.max(delayMs, BACKOFF.firstMs));
  }

  private expire(entry: Entry): void {
    entry.material = null;
    entry.cancelExpiry = null;
    this.deps.log.error({ identity: entry.identity }, 'certificate expired and none has replaced it');
    this.tellGone(entry.identity, 'expired');
  }

  private tellGone(identity: string, cause: 'expired' | 'forgotten'): void {
    this.tell((listener) => listener.onGone(identity, cause));
  }

  /** A listener's error is its own: it must not look like a failed fetch. */
  private tell(event: (listener: CertificateListener) => void): void {
    for (const listener of this.listeners) {
      try {
        event(listener);
      } catch (error) {
        this.deps.log.error({ err: error }, 'a listener of certificates failed');
      }
    }
  }
}

function sameBundle(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  return a.length === b.length && a.every((root, index) => root.equals(b[index]!));
}

function newEntry(identity: string): Entry {
  return {
    identity,
    material: null,
    isFetching: false,
    failures: 0,
    backoffMs: 0,
    lastError: null,
    cancelTimer: null,
    cancelExpiry: null,
  };
}
