/** Longer texts, which only an ill-meaning peer sends, are not remembered: at most 1 MiB of keys in all. */
const MAX_TEXT_CHARACTERS = 1024;

/** What a pure function makes of texts that come again and again. Bounded: a full one starts anew. Results are shared, so read only. */
export class Memo<Value> {
  readonly #make: (text: string) => Value;
  readonly #maxTexts: number;
  readonly #known = new Map<string, Value>();

  constructor(make: (text: string) => Value, maxTexts = 1024) {
    this.#make = make;
    this.#maxTexts = maxTexts;
  }

  /** Texts remembered. */
  get size(): number {
    return this.#known.size;
  }

  of(text: string): Value {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const made = this.#make(text);
    if (text.length > MAX_TEXT_CHARACTERS) return made;
    if (this.#known.size >= this.#maxTexts) this.#known.clear();
    this.#known.set(text, made);
    return made;
  }
}
