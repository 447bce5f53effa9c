const NONE: readonly never[] = [];

interface Group<Value> {
  values: Value[];
  /** Somebody may hold `values`: the next change makes a new list. */
  isGiven: boolean;
}

/** Values under string keys, several per key. Arrays, not sets: nearly every key holds one value. */
export class GroupedIndex<Value> {
  readonly #groups = new Map<string, Group<Value>>();

  add(key: string, value: Value): void {
    const group = this.#groups.get(key);
    if (group === undefined) this.#groups.set(key, { values: [value], isGiven: false });
    else writable(group).push(value);
  }

  /** Order within a group is not kept. */
  remove(key: string, value: Value): void {
    const group = this.#groups.get(key);
    const at = group === undefined ? -1 : group.values.indexOf(value);
    if (group === undefined || at < 0) return;
    const values = writable(group);
    const last = values.pop()!;
    if (at < values.length) values[at] = last;
    if (values.length === 0) this.#groups.delete(key);
  }

  /** The list never changes: as long as the key gives the same one, nothing has changed there. */
  get(key: string): readonly Value[] {
    const group = this.#groups.get(key);
    if (group === undefined) return NONE;
    group.isGiven = true;
    return group.values;
  }

  has(key: string): boolean {
    return this.#groups.has(key);
  }

  clear(): void {
    this.#groups.clear();
  }
}

function writable<Value>(group: Group<Value>): Value[] {
  if (group.isGiven) {
    group.values = group.values.slice();
    group.isGiven = false;
  }
  return group.values;
}

/** The value that comes first by `compare`. Which one that is must not depend on the order of arrival: compare down to a unique key. */
export function firstBy<Value>(
  values: readonly Value[],
  compare: (a: Value, b: Value) => number,
): Value | undefined {
  let first = values[0];
  for (let i = 1; i < values.length; i++) if (compare(values[i]!, first!) < 0) first = values[i];
  return first;
}

/** Orders true before false. */
export function trueFirst(a: boolean, b: boolean): number {
  return Number(b) - Number(a);
}

/** Code unit order: the same on every machine, whatever its locale. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
