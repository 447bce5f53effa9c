export interface GateOptions {
  /** At once. */
  readonly most: number;
  /** Who may wait besides. */
  readonly mostWaiting: number;
  /** Longest wait, milliseconds. */
  readonly maxWaitMs: number;
}

interface Waiter {
  readonly enter: (mayGo: boolean) => void;
  readonly sinceMs: number;
}

/** Lets a few through at once, in the order in which they came. */
export class Gate {
  readonly #options: GateOptions;
  readonly #nowMs: () => number;
  readonly #waiting: Waiter[] = [];
  #inside = 0;

  constructor(options: GateOptions, deps: { readonly nowMs: () => number }) {
    this.#options = options;
    this.#nowMs = deps.nowMs;
  }

  /** What `work` gives; null where there was no room for it in time: then it was not begun. */
  async pass<T>(work: () => Promise<T>): Promise<T | null> {
    if (!(await this.#enter())) return null;
    try {
      return await work();
    } finally {
      this.#leave();
    }
  }

  #enter(): Promise<boolean> | boolean {
    if (this.#inside < this.#options.most) {
      this.#inside++;
      return true;
    }
    if (this.#waiting.length >= this.#options.mostWaiting) return false;
    return new Promise((enter) => this.#waiting.push({ enter, sinceMs: this.#nowMs() }));
  }

  #leave(): void {
    const oldestMs = this.#nowMs() - this.#options.maxWaitMs;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const mayGo = next.sinceMs >= oldestMs;
      next.enter(mayGo);
      if (mayGo) return; // in our place
    }
    this.#inside--;
  }
}
