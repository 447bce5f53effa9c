import { createHash } from 'node:crypto';
import { encodeDeltaResponse, encodeResource } from '../../mesh/proto/index.js';
import type { Message, Push, ResourceContent, StoredResource } from './types.js';

export interface ResourceSetOptions {
  readonly typeUrl: string;
  /** Changes remembered for readers that are behind; who falls further back is lost and must start over. */
  readonly maxLogEntries?: number;
}

/** Where a reader stands in the log of changes. */
export interface Cursor {
  /**
   * Goes on to the position `upTo` (default: all). Gives what is changed by that, the same object to every reader that goes the same way; null: too
   * far behind, this reader cannot go on. What has changed again after `upTo` is left for later.
   */
  take(upTo?: number): Push | null;
  /** Something has changed since, before the position `upTo` (default: at all). */
  isBehind(upTo?: number): boolean;
  close(): void;
}

const MAX_LOG_ENTRIES = 200_000;
/** The log is cut in steps of this many entries. */
const LOG_SLACK = 1024;
/** Ways from one position to another that are kept: nearly all readers go the same. */
const MAX_KEPT_CHANGES = 16;

/**
 * All resources of one type, each encoded once, with a log of changed names. Readers hold a position in the log instead of a copy of what
 * their client has: a client costs a few bytes, whatever the number of resources. What many are told is put together once.
 */
export class ResourceSet {
  readonly typeUrl: string;
  readonly #maxLogEntries: number;
  readonly #resources: Map<string, StoredResource>;
  readonly #byKey: Map<string, Set<StoredResource>>;
  readonly #cursors: Set<LogCursor>;
  #log: string[];
  /** Position of `#log[0]`. */
  #logStart: number;
  /** Since the last update, by `from-to`. */
  readonly #changes: Map<string, Push>;
  #everything: Push | null;
  readonly #messages: WeakMap<Push, Message>;
  #nonce: number;

  constructor(options: ResourceSetOptions) {
    this.typeUrl = options.typeUrl;
    this.#maxLogEntries = options.maxLogEntries ?? MAX_LOG_ENTRIES;
    this.#resources = new Map();
    this.#byKey = new Map();
    this.#cursors = new Set();
    this.#log = [];
    this.#logStart = 0;
    this.#changes = new Map();
    this.#everything = null;
    this.#messages = new WeakMap();
    this.#nonce = 0;
  }

  get size(): number {
    return this.#resources.size;
  }

  /** Changes so far; names the state of the set. */
  get position(): number {
    return this.#logStart + this.#log.length;
  }

  /** Sets or (null) removes resources by name, in one step. Returns how many really changed. */
  update(updates: ReadonlyMap<string, ResourceContent | null>): number {
    const before = this.position;
    for (const [name, content] of updates) {
      const old = this.#resources.get(name);
      const next = content === null ? undefined : store(this.typeUrl, content);
      if (old?.version === next?.version) continue;
      if (old !== undefined) this.#remove(old);
      if (next !== undefined) this.#add(next);
      this.#log.push(name);
    }
    const changed = this.position - before;
    if (changed > 0) {
      this.#changes.clear();
      this.#everything = null;
    }
    this.#trim();
    return changed;
  }

  get(name: string): StoredResource | undefined {
    return this.#resources.get(name);
  }

  all(): Iterable<StoredResource> {
    return this.#resources.values();
  }

  /** All resources, for whoever has none. */
  everything(): Push {
    this.#everything ??= { resources: [...this.#resources.values()], removed: [] };
    return this.#everything;
  }

  /** The push as a whole response, encoded once. */
  encode(push: Push): Message {
    let message = this.#messages.get(push);
    if (message === undefined) {
      const nonce = `${++this.#nonce}`;
      const bytes = encodeDeltaResponse({
        typeUrl: this.typeUrl,
        nonce,
        systemVersion: `${this.position}`,
        resources: push.resources.map(({ encoded }) => encoded),
        removed: push.removed,
      });
      message = { nonce, bytes };
      this.#messages.set(push, message);
    }
    return message;
  }

  /** What a subscription to `key` brings: by name, alias or followed name. */
  matching(key: string): Iterable<StoredResource> {
    return this.#byKey.get(key) ?? [];
  }

  /** A reader that has seen everything so far. Close it. */
  cursor(): Cursor {
    const cursor: LogCursor = {
      isBehind: (upTo = this.position) => cursor.position < upTo,
      position: this.position,
      take: (upTo = this.position) => this.#take(cursor, upTo),
      close: () => this.#cursors.delete(cursor),
    };
    this.#cursors.add(cursor);
    return cursor;
  }

  #take(cursor: LogCursor, upTo: number): Push | null {
    const from = cursor.position;
    if (from < this.#logStart) return null;
    if (upTo <= from) return NOTHING;
    cursor.position = upTo;
    const key = `${from}-${upTo}`;
    let changes = this.#changes.get(key);
    if (changes === undefined) {
      changes = this.#changesBetween(from, upTo);
      this.#changes.set(key, changes);
      if (this.#changes.size > MAX_KEPT_CHANGES) this.#changes.delete(this.#changes.keys().next().value!);
    }
    return changes;
  }

  #changesBetween(from: number, to: number): Push {
    const names = new Set(this.#log.slice(from - this.#logStart, to - this.#logStart));
    if (to < this.position) for (const name of this.#log.slice(to - this.#logStart)) names.delete(name);
    const resources: StoredResource[] = [];
    const removed: string[] = [];
    for (const name of names) {
      const resource = this.#resources.get(name);
      if (resource === undefined) removed.push(name);
      else resources.push(resource);
    }
    return { resources, removed };
  }

  /** Forgets what every reader has seen, and whatever is above the limit. */
  #trim(): void {
    let from = this.position;
    for (const cursor of this.#cursors) from = Math.min(from, cursor.position);
    from = Math.max(from, this.position - this.#maxLogEntries);
    if (from - this.#logStart < Math.min(LOG_SLACK, this.#maxLogEntries)) return;
    this.#log = this.#log.slice(from - this.#logStart);
    this.#logStart = from;
  }

  #add(resource: StoredResource): void {
    this.#resources.set(resource.name, resource);
    for (const key of resource.keys) {
      const set = this.#byKey.get(key);
      if (set === undefined) this.#byKey.set(key, new Set([resource]));
      else set.add(resource);
    }
  }

  #remove(resource: StoredResource): void {
    this.#resources.delete(resource.name);
    for (const key of resource.keys) {
      const set = this.#byKey.get(key);
      if (set?.delete(resource) && set.size === 0) this.#byKey.delete(key);
    }
  }
}

const NOTHING: Push = { resources: [], removed: [] };

interface LogCursor extends Cursor {
  position: number;
}

function store(typeUrl: string, content: ResourceContent): StoredResource {
  const hash = createHash('sha256').update(content.value);
  for (const key of [...content.aliases, ...content.follows]) hash.update('\0').update(key);
  const version = hash.digest('base64url').slice(0, 22);
  const { name, aliases, value } = content;
  return {
    name,
    version,
    keys: [...new Set([name, ...aliases, ...content.follows])],
    encoded: encodeResource({ name, version, aliases, typeUrl, value }),
  };
}
