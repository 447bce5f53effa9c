import { keyOf, remarksOf } from '../manifests/index.js';
import type { Decoder, RawObject } from '../manifests/types.js';
import { recordOf, textOf } from './events.js';
import type { Entry } from './types.js';

export interface TableDeps<T> {
  readonly decode: Decoder<T>;
  /** Of each entry that came, changed or went. */
  readonly onChange: (key: string, before: Entry<T> | undefined, now: Entry<T> | undefined) => void;
  /** Sees each object that comes, as the API server has it; null: it is gone. Ahead of `onChange`. */
  readonly observe?: (key: string, object: RawObject | null) => void;
}

const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';

/**
 * The objects of one kind as decoded. A listing is gathered beside them and takes their place when it is complete: until then, and if it fails,
 * everything stays as it was; of what did not change meanwhile nothing is told.
 */
export class ObjectTable<T> {
  readonly #kind: string;
  readonly #deps: TableDeps<T>;
  #entries: Map<string, Entry<T>>;
  #listing: Map<string, Entry<T>> | null;
  #reusesVersions: boolean;

  constructor(options: { readonly kind: string }, deps: TableDeps<T>) {
    this.#kind = options.kind;
    this.#deps = deps;
    this.#entries = new Map();
    this.#listing = null;
    this.#reusesVersions = true;
  }

  get size(): number {
    return this.#entries.size;
  }

  get entries(): ReadonlyMap<string, Entry<T>> {
    return this.#entries;
  }

  get isListing(): boolean {
    return this.#listing !== null;
  }

  /** A new listing; one that was not completed is forgotten. `reusesVersions` false: an equal resourceVersion is no proof that nothing changed. */
  beginListing(reusesVersions: boolean): void {
    this.#listing = new Map();
    this.#reusesVersions = reusesVersions;
  }

  /** What the listing has not named is gone. */
  completeListing(): void {
    const before = this.#entries;
    this.#entries = this.#listing ?? before;
    this.#listing = null;
    this.#reusesVersions = true;
    for (const [key, entry] of before)
      if (!this.#entries.has(key)) {
        this.#deps.observe?.(key, null);
        this.#deps.onChange(key, entry, undefined);
      }
    for (const [key, entry] of this.#entries)
      if (before.get(key) !== entry) this.#deps.onChange(key, before.get(key), entry);
  }

  put(apiVersion: string, object: RawObject): void {
    const key = this.#keyOf(object);
    const before = this.#listing?.get(key) ?? this.#entries.get(key);
    // Decoders keep annotations: not this one, which repeats the whole object.
    const annotations = recordOf(object.metadata['annotations']);
    if (annotations !== undefined) delete annotations[LAST_APPLIED];
    const whole = { ...object, apiVersion, kind: this.#kind };
    const entry = this.#entryOf(whole, before);
    if (entry !== null) this.#deps.observe?.(key, whole);
    if (this.#listing !== null) {
      if (entry === null) this.#listing.delete(key);
      else this.#listing.set(key, entry);
      return;
    }
    if (entry === null) this.#drop(key);
    else if (entry !== before) {
      this.#entries.set(key, entry);
      this.#deps.onChange(key, before, entry);
    }
  }

  remove(object: RawObject): void {
    const key = this.#keyOf(object);
    if (this.#listing === null) this.#drop(key);
    else this.#listing.delete(key);
  }

  #drop(key: string): void {
    const before = this.#entries.get(key);
    if (!this.#entries.delete(key)) return;
    this.#deps.observe?.(key, null);
    this.#deps.onChange(key, before, undefined);
  }

  /** Null: none of this program's business. An object that is invalid now keeps its last good version, unless it is another one of that name. */
  #entryOf(object: RawObject, before: Entry<T> | undefined): Entry<T> | null {
    const uid = textOf(object.metadata['uid']);
    const resourceVersion = textOf(object.metadata['resourceVersion']);
    const isSame = before !== undefined && before.uid === uid;
    if (isSame && this.#reusesVersions && before.resourceVersion === resourceVersion) return before;
    const decoded = this.#deps.decode(object);
    if (decoded.outcome === 'ignored' || decoded.outcome === 'unknown-kind') return null;
    const hasGood = isSame && before.isGood;
    const about = { uid, resourceVersion, remarks: remarksOf(decoded, hasGood) };
    if (decoded.outcome === 'object') return { ...about, value: decoded.value, isGood: true };
    return hasGood
      ? { ...about, value: before.value, isGood: true }
      : { ...about, value: decoded.inPlace, isGood: false };
  }

  #keyOf({ metadata }: RawObject): string {
    return keyOf(this.#kind, textOf(metadata['namespace']), metadata.name);
  }
}
