import { createHash } from 'node:crypto';
import { messageOf } from '../common/errors.js';
import { TokenBucket } from '../common/token-bucket.js';
import { type ApiClient, statusOf } from '../kube/index.js';
import type { Log } from '../log/index.js';
import { microTime } from './lease.js';
import type { ClusterEvent } from './types.js';

export interface EventRecorderOptions {
  /** `culvert.io/controller`. */
  readonly controller: string;
  /** Which of its replicas. */
  readonly instance: string;
  /** Of all objects together. */
  readonly perSecond: number;
  readonly burst: number;
  /** Of one object: so many, then one every five minutes (as client-go). */
  readonly objectBurst: number;
  /** The same of the same object is told again no sooner, with how often it was. */
  readonly seriesMs: number;
  /** Waiting at most; more are dropped, and counted. */
  readonly maxWaiting: number;
}

export const EVENT_DEFAULTS = {
  perSecond: 5,
  burst: 50,
  objectBurst: 25,
  seriesMs: 60_000,
  maxWaiting: 1000,
} as const;

export interface EventRecorderDeps {
  readonly client: Pick<ApiClient, 'request'>;
  readonly log: Log;
}

/** Events that are remembered for their series; as long as API servers keep them by default. */
const MEMORY_MS = 3_600_000;
const MAX_REMEMBERED = 4096;
const OBJECT_PER_SECOND = 1 / 300;
const MAX_NOTE_BYTES = 1024;
const TIMEOUT_MS = 10_000;

interface Told {
  readonly path: string;
  count: number;
  /** When the API server was last told. */
  toldMs: number;
  toldCount: number;
}

/**
 * Tells people by events.k8s.io/v1 Events. The same of the same object is one Event with a count. Losing one is no error: they are told at most once, within
 * rates of the object and of all.
 */
export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #deps: EventRecorderDeps;
  readonly #bucket: TokenBucket;
  readonly #objects: Map<string, TokenBucket>;
  readonly #told: Map<string, Told>;
  readonly #waiting: Map<string, ClusterEvent>;
  #isSending: boolean;
  #isStopped: boolean;
  #pump: NodeJS.Timeout | null;
  #sent: number;
  #dropped: number;

  constructor(options: EventRecorderOptions, deps: EventRecorderDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#bucket = new TokenBucket(options, { nowMs: () => performance.now() });
    this.#objects = new Map();
    this.#told = new Map();
    this.#waiting = new Map();
    this.#isSending = false;
    this.#isStopped = false;
    this.#pump = null;
    this.#sent = 0;
    this.#dropped = 0;
  }

  get counts(): { readonly sent: number; readonly dropped: number } {
    return { sent: this.#sent, dropped: this.#dropped };
  }

  record(event: ClusterEvent): void {
    if (this.#isStopped) return;
    const key = keyOf(event);
    const told = this.#told.get(key);
    if (told !== undefined) {
      told.count++;
      if (performance.now() - told.toldMs < this.#options.seriesMs) return;
    }
    if (this.#waiting.has(key)) return;
    if (this.#waiting.size >= this.#options.maxWaiting || !this.#takeOfObject(event)) {
      this.#dropped++;
      return;
    }
    this.#waiting.set(key, event);
    this.#schedule(0);
  }

  /** Drops what waits. */
  stop(): void {
    this.#isStopped = true;
    this.clear();
  }

  /** Drops what waits, and what is known of what was told. */
  clear(): void {
    if (this.#pump !== null) clearTimeout(this.#pump);
    this.#pump = null;
    this.#waiting.clear();
    this.#told.clear();
    this.#objects.clear();
  }

  #schedule(ms: number): void {
    this.#pump ??= setTimeout(() => {
      this.#pump = null;
      void this.#run();
    }, ms);
  }

  async #run(): Promise<void> {
    if (this.#isSending) return;
    this.#isSending = true;
    for (const [key, event] of this.#waiting) {
      if (!this.#bucket.tryTake()) {
        this.#schedule(Math.ceil(this.#bucket.waitMs));
        break;
      }
      this.#waiting.delete(key);
      await this.#send(key, event).catch((error: unknown) => {
        this.#dropped++;
        this.#deps.log.warn({ reason: messageOf(error), event: event.reason }, 'an Event could not be told');
      });
    }
    this.#isSending = false;
  }

  async #send(key: string, event: ClusterEvent): Promise<void> {
    const namespace = event.regarding.namespace || 'default';
    const folder = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`;
    // Cut, it must not end in a dash or dot.
    const name = `${event.regarding.name.slice(0, 200).replace(/[^a-z0-9]+$/, '')}.${key.slice(0, 16)}`;
    const told = this.#told.get(key) ?? { path: `${folder}/${name}`, count: 1, toldMs: 0, toldCount: 0 };
    // Made by us before, or by the replica that led before us.
    const isThere =
      (told.toldCount > 0 && (await this.#again(told))) ||
      !(await this.#create(folder, name, namespace, event));
    if (isThere && told.toldCount === 0) {
      told.count = 2;
      await this.#again(told);
    }
    this.#remember(key, told);
    this.#sent++;
  }

  /** False: there is one of that name. */
  async #create(folder: string, name: string, namespace: string, event: ClusterEvent): Promise<boolean> {
    const { regarding, type, reason, action, note } = event;
    const { controller, instance } = this.#options;
    const place = regarding.namespace === '' ? {} : { namespace: regarding.namespace };
    const identity = regarding.uid === '' ? {} : { uid: regarding.uid };
    const { apiVersion, kind, name: object } = regarding;
    const body = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name, namespace },
      eventTime: microTime(),
      reportingController: controller,
      reportingInstance: instance.slice(0, 128),
      action,
      reason,
      regarding: { apiVersion, kind, name: object, ...place, ...identity },
      note: cut(note),
      type,
    };
    try {
      await this.#request('POST', folder, body);
      return true;
    } catch (error) {
      if (statusOf(error) === 409) return false;
      throw error;
    }
  }

  /** False: it is gone. */
  async #again({ path, count }: Told): Promise<boolean> {
    try {
      const series = { count: Math.max(2, count), lastObservedTime: microTime() };
      await this.#request('PATCH', path, { series });
      return true;
    } catch (error) {
      if (statusOf(error) === 404) return false;
      throw error;
    }
  }

  async #request(method: 'POST' | 'PATCH', path: string, body: object): Promise<void> {
    const contentType = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    await this.#deps.client.request({ method, path, body, contentType, signal });
  }

  #remember(key: string, told: Told): void {
    told.toldMs = performance.now();
    told.toldCount = told.count;
    this.#told.delete(key);
    this.#told.set(key, told);
    for (const [oldest, { toldMs }] of this.#told) {
      if (this.#told.size <= MAX_REMEMBERED && performance.now() - toldMs < MEMORY_MS) break;
      this.#told.delete(oldest);
    }
  }

  #takeOfObject({ regarding }: ClusterEvent): boolean {
    const key = `${regarding.kind}/${regarding.namespace}/${regarding.name}`;
    const bucket =
      this.#objects.get(key) ??
      new TokenBucket(
        { burst: this.#options.objectBurst, perSecond: OBJECT_PER_SECOND },
        { nowMs: () => performance.now() },
      );
    this.#objects.set(key, bucket);
    if (this.#objects.size > MAX_REMEMBERED)
      for (const [one, { isFull }] of this.#objects) if (isFull) this.#objects.delete(one);
    return bucket.tryTake();
  }
}

function keyOf({ regarding, type, reason, note }: ClusterEvent): string {
  const { kind, namespace, name, uid } = regarding;
  const text = JSON.stringify([kind, namespace, name, uid, type, reason, note]);
  return createHash('sha256').update(text).digest('hex');
}

function cut(note: string): string {
  if (Buffer.byteLength(note) <= MAX_NOTE_BYTES) return note;
  const bytes = Buffer.from(note).subarray(0, MAX_NOTE_BYTES - 3);
  // A character that was cut through reads as U+FFFD.
  return `${bytes.toString('utf8').replace(/\uFFFD+$/, '')}…`;
}
