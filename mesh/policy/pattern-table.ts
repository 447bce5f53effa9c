/** A text as a whole, how it begins, or how it ends. */
export interface TextPattern {
  readonly kind: 'exact' | 'prefix' | 'suffix';
  readonly value: string;
}

/** Values by text pattern; a look-up takes one step for whole texts and one per length of a beginning or end in use, however many patterns there are. */
export class PatternTable<Value> {
  readonly #whole = new Map<string, Value>();
  readonly #beginnings = new Map<number, Map<string, Value>>();
  readonly #ends = new Map<number, Map<string, Value>>();

  /** The value of a pattern; made by `make` if it has none yet. */
  at({ kind, value: text }: TextPattern, make: () => Value): Value {
    if (kind === 'exact') return valueAt(this.#whole, text, make);
    const lengths = kind === 'prefix' ? this.#beginnings : this.#ends;
    const texts = valueAt(lengths, text.length, () => new Map<string, Value>());
    return valueAt(texts, text, make);
  }

  /** Adds to `found` the values of all patterns that `text` has. */
  collect(text: string, found: Value[]): void {
    const whole = this.#whole.get(text);
    if (whole !== undefined) found.push(whole);
    for (const [length, texts] of this.#beginnings) {
      const value = length <= text.length ? texts.get(text.slice(0, length)) : undefined;
      if (value !== undefined) found.push(value);
    }
    for (const [length, texts] of this.#ends) {
      const value = length <= text.length ? texts.get(text.slice(text.length - length)) : undefined;
      if (value !== undefined) found.push(value);
    }
  }
}

/** The value of `key`; made by `make` if it has none yet. */
export function valueAt<Key, Value>(map: Map<Key, Value>, key: Key, make: () => Value): Value {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
