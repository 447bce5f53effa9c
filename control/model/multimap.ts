/** Sets of values under keys; an emptied set is dropped. */
export class Multimap<Value> {
  readonly #sets: Map<string, Set<Value>>;

  constructor() {
    this.#sets = new Map();
  }

  /** Keys in use. */
  get size(): number {
    return this.#sets.size;
  }

  get(key: string): ReadonlySet<Value> {
    return this.#sets.get(key) ?? EMPTY;
  }

  add(key: string, value: Value): void {
    const set = this.#sets.get(key);
    if (set === undefined) this.#sets.set(key, new Set([value]));
    else set.add(value);
  }

  delete(key: string, value: Value): void {
    const set = this.#sets.get(key);
    if (set?.delete(value) && set.size === 0) this.#sets.delete(key);
  }
}

const EMPTY: ReadonlySet<never> = new Set();
