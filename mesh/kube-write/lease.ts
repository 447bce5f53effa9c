import { messageOf } from '../common/errors.js';
import { type ApiClient, statusOf } from '../kube/index.js';
import type { Log } from '../log/index.js';
import type { Leadership, LeadershipListener } from './types.js';

export interface LeaseElectionOptions {
  readonly namespace: string;
  /** Of the Lease. */
  readonly name: string;
  /** Of this program among its replicas; no two alike, ever. */
  readonly identity: string;
  /** After this without a renewal others take over. */
  readonly leaseMs: number;
  /** After this without a renewal we no longer lead; below `leaseMs`. */
  readonly renewMs: number;
  /** Between two tries, to renew or to take over. */
  readonly retryMs: number;
}

export const LEASE_DEFAULTS = { leaseMs: 15_000, renewMs: 10_000, retryMs: 2_000 } as const;

export interface LeaseElectionDeps {
  readonly client: Pick<ApiClient, 'request'>;
  readonly log: Log;
  /** [0, 1); default Math.random. */
  readonly random?: () => number;
}

interface LeaseObject {
  readonly metadata: { readonly resourceVersion?: string; readonly [field: string]: unknown };
  readonly spec?: {
    readonly holderIdentity?: string;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string;
    readonly renewTime?: string;
    readonly leaseTransitions?: number;
  };
}

/** A leader's write that has no answer by then is given up: should we cease to lead meanwhile, nobody else has begun to. */
export const WRITE_TIMEOUT_MS = LEASE_DEFAULTS.leaseMs - LEASE_DEFAULTS.renewMs;
/** At the end there is no time to wait for an API server that hangs. */
const RELEASE_MS = 2_000;

/**
 * One of several replicas leads: leader election by a coordination.k8s.io/v1 Lease, as client-go does it. Clocks of others are not trusted: a lease
 * has run out when it was *seen* unchanged for its whole duration.
 */
export class LeaseElection implements Leadership {
  readonly #options: LeaseElectionOptions;
  readonly #deps: LeaseElectionDeps;
  readonly #path: string;
  readonly #listeners: Set<LeadershipListener>;
  readonly #stopping: AbortController;
  /** As last read or written; null: to be read. */
  #lease: LeaseObject | null;
  /** Of another's lease: which version, and when it was first seen. */
  #seen: { readonly version: string; readonly atMs: number };
  #isLeading: boolean;
  /** When the last successful renewal was begun. */
  #renewedMs: number;
  #deadline: NodeJS.Timeout | null;
  #next: NodeJS.Timeout | null;
  #running: Promise<void>;
  #holder: string;
  #trouble: string;

  constructor(options: LeaseElectionOptions, deps: LeaseElectionDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#path = `/apis/coordination.k8s.io/v1/namespaces/${options.namespace}/leases`;
    this.#listeners = new Set();
    this.#stopping = new AbortController();
    this.#lease = null;
    this.#seen = { version: '', atMs: 0 };
    this.#isLeading = false;
    this.#renewedMs = 0;
    this.#deadline = null;
    this.#next = null;
    this.#running = Promise.resolve();
    this.#holder = '';
    this.#trouble = '';
  }

  get isLeader(): boolean {
    // By the clock, too: a process that was stopped and goes on has not yet heard of its deadline.
    return this.#isLeading && performance.now() - this.#renewedMs < this.#options.renewMs;
  }

  get holder(): string {
    return this.#holder;
  }

  subscribe(listener: LeadershipListener): () => void {
    this.#listeners.add(listener);
    if (this.#isLeading) listener.onLead();
    return () => this.#listeners.delete(listener);
  }

  start(): void {
    this.#schedule(0);
  }

  /** Gives the lease back, so that another leads at once. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    if (this.#next !== null) clearTimeout(this.#next);
    await this.#running;
    const lease = this.#lease;
    const isOurs = this.#isLeading && lease !== null;
    this.#follow('stopped');
    if (!isOurs) return;
    const spec = { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1, renewTime: microTime() };
    await this.#put({ ...lease, spec }, AbortSignal.timeout(RELEASE_MS)).catch((error: unknown) =>
      this.#deps.log.warn({ reason: messageOf(error) }, 'lease could not be given back'),
    );
  }

  #schedule(ms: number): void {
    if (this.#stopping.signal.aborted) return;
    this.#next = setTimeout(() => {
      this.#running = this.#round();
    }, ms);
  }

  async #round(): Promise<void> {
    const { retryMs, renewMs } = this.#options;
    // Some replicas were started together.
    let waitMs = retryMs * (1 + (this.#deps.random ?? Math.random)() / 5);
    try {
      const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(renewMs / 2)]);
      waitMs = Math.min(waitMs, await this.#try(signal));
      this.#trouble = '';
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      this.#lease = null;
      // Another was faster: read what it wrote.
      if (statusOf(error) === 409) waitMs = retryMs / 10;
      else this.#report(messageOf(error));
    }
    this.#schedule(waitMs);
  }

  /** Gives the longest wait until the next try, milliseconds. */
  async #try(signal: AbortSignal): Promise<number> {
    const { identity, retryMs, leaseMs } = this.#options;
    const startedMs = performance.now();
    const lease = this.#lease ?? (await this.#read(signal));
    const holder = lease?.spec?.holderIdentity ?? '';
    if (lease !== null && holder !== identity && holder !== '') {
      const leftMs = this.#leftMs(lease);
      if (leftMs > 0) {
        this.#lease = null;
        this.#holder = holder;
        this.#follow(`${holder} leads`);
        return leftMs + 1;
      }
    }
    const now = microTime();
    const isRenewal = holder === identity;
    const transitions = (lease?.spec?.leaseTransitions ?? 0) + (isRenewal || lease === null ? 0 : 1);
    const spec = {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(leaseMs / 1000),
      acquireTime: (isRenewal ? lease?.spec?.acquireTime : undefined) ?? now,
      renewTime: now,
      leaseTransitions: transitions,
    };
    this.#lease =
      lease === null ? await this.#create(spec, signal) : await this.#put({ ...lease, spec }, signal);
    this.#lead(startedMs);
    return retryMs;
  }

  /** Until another's lease has run out. */
  #leftMs(lease: LeaseObject): number {
    const version = lease.metadata.resourceVersion ?? '';
    const nowMs = performance.now();
    if (version !== this.#seen.version) this.#seen = { version, atMs: nowMs };
    return this.#seen.atMs + (lease.spec?.leaseDurationSeconds ?? 0) * 1000 - nowMs;
  }

  #lead(renewedMs: number): void {
    const { identity, renewMs } = this.#options;
    this.#renewedMs = renewedMs;
    if (this.#deadline !== null) clearTimeout(this.#deadline);
    this.#deadline = setTimeout(
      () => this.#follow(`not renewed within ${renewMs} ms`),
      renewedMs + renewMs - performance.now(),
    );
    this.#holder = identity;
    if (this.#isLeading) return;
    this.#isLeading = true;
    this.#deps.log.info({ identity, lease: this.#options.name }, 'leading');
    for (const listener of this.#listeners) listener.onLead();
  }

  #follow(reason: string): void {
    if (this.#deadline !== null) clearTimeout(this.#deadline);
    this.#deadline = null;
    if (!this.#isLeading) return;
    this.#isLeading = false;
    if (this.#holder === this.#options.identity) this.#holder = '';
    this.#deps.log.warn({ reason, lease: this.#options.name }, 'no longer leading');
    for (const listener of this.#listeners) listener.onFollow();
  }

  #report(reason: string): void {
    if (reason !== this.#trouble) this.#deps.log.warn({ reason }, 'lease cannot be renewed or taken');
    this.#trouble = reason;
  }

  async #read(signal: AbortSignal): Promise<LeaseObject | null> {
    try {
      const path = `${this.#path}/${this.#options.name}`;
      return (await this.#deps.client.request({ path, signal })) as LeaseObject;
    } catch (error) {
      if (statusOf(error) === 404) return null;
      throw error;
    }
  }

  async #create(spec: LeaseObject['spec'], signal: AbortSignal): Promise<LeaseObject> {
    const { name, namespace } = this.#options;
    const metadata = { name, namespace };
    const body = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata, spec };
    return (await this.#deps.client.request({
      method: 'POST',
      path: this.#path,
      body,
      signal,
    })) as LeaseObject;
  }

  /** Fails with 409 where the lease has changed since. */
  async #put(body: LeaseObject, signal: AbortSignal): Promise<LeaseObject> {
    const path = `${this.#path}/${this.#options.name}`;
    return (await this.#deps.client.request({ method: 'PUT', path, body, signal })) as LeaseObject;
  }
}

/** metav1.MicroTime of now. */
export function microTime(): string {
  return new Date().toISOString().replace('Z', '000Z');
}
