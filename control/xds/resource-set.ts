import { createHash } from 'node:crypto';
import { encodeResource } from '../../mesh/proto/index.js';
import type { ResourceContent, StoredResource } from './types.js';

export interface ResourceSetOptions {
  readonly typeUrl: string;
  /** Changes remembered for readers that are behind; who falls further back is lost and must start over. */
  readonly maxLogEntries?: number;
}

/** Where a reader stands in the log of changes. */
export interface Cursor {
  /** Names changed since the last `take`; null: too far behind, this reader cannot go on. */
  take(): ReadonlySet<string> | null;
  /** Something has changed since. */
  readonly isBehind: boolean;
  close(): void;
}

const MAX_LOG_ENTRIES = 200_000;
/** The log is cut in steps of this many entries. */
const LOG_SLACK = 1024;

/**
 * All resources of one type, each encoded once, with a log of changed names. Readers hold a position in the log instead of a copy of what
 * their client has: a client costs a few bytes, whatever the number of resources.
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

  constructor(options: ResourceSetOptions) {
    this.typeUrl = options.typeUrl;
    this.#maxLogEntries = options.maxLogEntries ?? MAX_LOG_ENTRIES;
    this.#resources = new Map();
    this.#byKey = new Map();
    this.#cursors = new Set();
    this.#log = [];
    this.#logStart = 0;
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
    this.#trim();
    return changed;
  }

  get(name: string): StoredResource | undefined {
    return this.#resources.get(name);
  }

  all(): Iterable<StoredResource> {
    return this.#resources.values();
  }

  /** What a subscription to `key` brings: by name, alias or followed name. */
  matching(key: string): Iterable<StoredResource> {
    return this.#byKey.get(key) ?? [];
  }

  /** A reader that has seen everything so far. Close it. */
  cursor(): Cursor {
    const set = this;
    const cursor: LogCursor = {
      get isBehind() {
        return this.position < set.position;
      },
      position: this.position,
      take: () => this.#take(cursor),
      close: () => this.#cursors.delete(cursor),
    };
    this.#cursors.add(cursor);
    return cursor;
  }

  #take(cursor: LogCursor): ReadonlySet<string> | null {
    if (cursor.position < this.#logStart) return null;
    const names = new Set(this.#log.slice(cursor.position - this.#logStart));
    cursor.position = this.position;
    return names;
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
