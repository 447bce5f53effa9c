/** So many at once (`burst`), then so many a second. */
export class TokenBucket {
  readonly #burst: number;
  readonly #perMs: number;
  readonly #nowMs: () => number;
  #tokens: number;
  #atMs: number;

  constructor(
    options: { readonly burst: number; readonly perSecond: number },
    deps: { readonly nowMs: () => number },
  ) {
    this.#burst = options.burst;
    this.#perMs = options.perSecond / 1000;
    this.#nowMs = deps.nowMs;
    this.#tokens = options.burst;
    this.#atMs = deps.nowMs();
  }

  /** Full: nobody would see whether it was used. */
  get isFull(): boolean {
    this.#refill();
    return this.#tokens >= this.#burst;
  }

  tryTake(): boolean {
    this.#refill();
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }

  /** What was taken and not used. */
  giveBack(): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + 1);
  }

  /** Until `tryTake` gives one, milliseconds. */
  get waitMs(): number {
    this.#refill();
    return this.#tokens >= 1 ? 0 : (1 - this.#tokens) / this.#perMs;
  }

  #refill(): void {
    const nowMs = this.#nowMs();
    this.#tokens = Math.min(this.#burst, this.#tokens + (nowMs - this.#atMs) * this.#perMs);
    this.#atMs = nowMs;
  }
}
