import type { Cursor, ResourceSet } from './resource-set.js';
import type { DeltaRequest, Push, StoredResource } from './types.js';

export interface SubscriptionOptions {
  /** Names that one client may subscribe to besides the wildcard. */
  readonly maxNames: number;
}

/**
 * What one client wants of one type and what it was sent: the rules of delta xDS (hbone-and-wds.md 3.2), no I/O. A wildcard client gets
 * everything and costs a log position; an on-demand client gets what its names bring, and we remember the names of what it holds.
 */
export class Subscription {
  readonly #set: ResourceSet;
  readonly #options: SubscriptionOptions;
  readonly #cursor: Cursor;
  readonly #names: Set<string>;
  /** On-demand: names of resources the client holds. */
  readonly #held: Set<string>;
  /** Subscribed since the last push: answered even if unchanged or unknown. */
  #fresh: Set<string>;
  #wildcard: boolean;
  /** The client's versions before this stream, until the first push. */
  #initial: Map<string, string> | null;
  /** Everything must be compared or sent, not just what changed. */
  #needsAll: boolean;
  #mustAnswer: boolean;

  constructor(set: ResourceSet, first: DeltaRequest, options: SubscriptionOptions) {
    this.#set = set;
    this.#options = options;
    this.#cursor = set.cursor();
    this.#names = new Set();
    this.#held = new Set();
    this.#fresh = new Set();
    this.#wildcard = (first.resourceNamesSubscribe ?? []).length === 0;
    this.#initial = new Map(Object.entries(first.initialResourceVersions ?? {}));
    this.#needsAll = this.#wildcard;
    this.#mustAnswer = true;
    this.change(first);
    // An on-demand client that reconnects still wants what it holds, whether it names it again or not.
    if (!this.#wildcard) for (const name of this.#initial.keys()) this.#subscribe(name);
  }

  /** More names than a client may have. */
  get isExcessive(): boolean {
    return this.#names.size > this.#options.maxNames;
  }

  /** Something has changed since the last push, before the position `upTo` (default: at all). */
  isBehind(upTo?: number): boolean {
    return this.#cursor.isBehind(upTo);
  }

  /** Applies the subscribe and unsubscribe lists of a request. */
  change(request: DeltaRequest): void {
    for (const name of request.resourceNamesSubscribe ?? []) {
      if (name !== '*') this.#subscribe(name);
      else if (!this.#wildcard) {
        this.#wildcard = true;
        this.#needsAll = true;
      }
    }
    for (const name of request.resourceNamesUnsubscribe ?? []) {
      if (name === '*') {
        this.#wildcard = false;
        this.#needsAll = false;
        this.#holdOnlyMatching();
      } else {
        this.#names.delete(name);
        this.#fresh.delete(name);
        if (!this.#wildcard) this.#holdOnlyMatching(name);
      }
    }
  }

  /** What to send now, of changes those up to the position `upTo` (default: all); null: nothing. 'lost': the client is too far behind and must reconnect. */
  next(upTo?: number): Push | null | 'lost' {
    const changed = this.#cursor.take(this.#needsAll ? undefined : upTo);
    if (changed === null) return 'lost';
    const push = this.#sharedPush(changed) ?? this.#ownPush(changed);
    const mustAnswer = this.#mustAnswer;
    if (this.#fresh.size > 0) this.#fresh = new Set();
    this.#initial = null;
    this.#needsAll = false;
    this.#mustAnswer = false;
    return mustAnswer || push.resources.length + push.removed.length > 0 ? push : null;
  }

  close(): void {
    this.#cursor.close();
  }

  /** What every wildcard client in the same place is told; null: there is more to say to this one. */
  #sharedPush(changed: Push): Push | null {
    if (!this.#wildcard || this.#fresh.size > 0) return null;
    if (!this.#needsAll) return changed;
    return this.#initial === null || this.#initial.size === 0 ? this.#set.everything() : null;
  }

  #ownPush(changed: Push): Push {
    const push = new PushBuilder();
    if (this.#needsAll) this.#addAll(push);
    else {
      for (const { name } of changed.resources) this.#addChanged(name, push);
      for (const name of changed.removed) this.#addChanged(name, push);
    }
    for (const name of this.#fresh) this.#addFresh(name, push);
    return push.finish();
  }

  #subscribe(name: string): void {
    this.#names.add(name);
    this.#fresh.add(name);
  }

  #addAll(push: PushBuilder): void {
    for (const resource of this.#set.all()) {
      if (this.#initial?.get(resource.name) !== resource.version) push.send(resource);
    }
    for (const name of this.#initial?.keys() ?? []) if (this.#set.get(name) === undefined) push.remove(name);
  }

  #addChanged(name: string, push: PushBuilder): void {
    const resource = this.#set.get(name);
    if (resource !== undefined && this.#wants(resource)) this.#send(resource, push);
    else if (this.#wildcard || this.#held.delete(name)) push.remove(name);
  }

  #addFresh(name: string, push: PushBuilder): void {
    let isKnown = false;
    for (const resource of this.#set.matching(name)) {
      isKnown = true;
      if (this.#initial?.get(resource.name) === resource.version) this.#hold(resource.name);
      else this.#send(resource, push);
    }
    if (!isKnown) push.remove(name);
  }

  #send(resource: StoredResource, push: PushBuilder): void {
    push.send(resource);
    this.#hold(resource.name);
  }

  #hold(name: string): void {
    if (!this.#wildcard) this.#held.add(name);
  }

  #wants(resource: StoredResource): boolean {
    return this.#wildcard || resource.keys.some((key) => this.#names.has(key));
  }

  /** After an unsubscribe the client drops by itself what its names bring no more. */
  #holdOnlyMatching(unsubscribed?: string): void {
    const candidates =
      unsubscribed === undefined
        ? [...this.#set.all()].filter((resource) => this.#wants(resource))
        : [...this.#set.matching(unsubscribed)];
    for (const resource of candidates) {
      if (this.#wants(resource)) this.#held.add(resource.name);
      else this.#held.delete(resource.name);
    }
  }
}

class PushBuilder {
  readonly #resources: Map<string, StoredResource>;
  readonly #removed: Set<string>;

  constructor() {
    this.#resources = new Map();
    this.#removed = new Set();
  }

  send(resource: StoredResource): void {
    this.#resources.set(resource.name, resource);
    this.#removed.delete(resource.name);
  }

  remove(name: string): void {
    if (!this.#resources.has(name)) this.#removed.add(name);
  }

  finish(): Push {
    return { resources: [...this.#resources.values()], removed: [...this.#removed] };
  }
}
