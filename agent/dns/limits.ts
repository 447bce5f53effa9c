/** How many questions wait for resolvers: each pod has a share that no other can use up, and all together have an end. */
export class InFlight {
  readonly #maxPerPod: number;
  readonly #max: number;
  readonly #byPod = new Map<string, number>();
  #total = 0;

  constructor(options: { readonly maxPerPod: number; readonly max: number }) {
    this.#maxPerPod = options.maxPerPod;
    this.#max = options.max;
  }

  get total(): number {
    return this.#total;
  }

  of(pod: string): number {
    return this.#byPod.get(pod) ?? 0;
  }

  /** False: no room, for this pod or at all. */
  take(pod: string): boolean {
    const own = this.#byPod.get(pod) ?? 0;
    if (own >= this.#maxPerPod || this.#total >= this.#max) return false;
    this.#byPod.set(pod, own + 1);
    this.#total++;
    return true;
  }

  giveBack(pod: string): void {
    const own = this.#byPod.get(pod) ?? 0;
    if (own <= 1) this.#byPod.delete(pod);
    else this.#byPod.set(pod, own - 1);
    this.#total--;
  }
}

/** A token bucket: `perSecond` on average, `burst` at once. */
export class RateLimit {
  readonly #perMs: number;
  readonly #burst: number;
  readonly #nowMs: () => number;
  #tokens: number;
  #filledMs: number;

  constructor(
    options: { readonly perSecond: number; readonly burst: number },
    deps: { readonly nowMs: () => number },
  ) {
    this.#perMs = options.perSecond / 1000;
    this.#burst = options.burst;
    this.#nowMs = deps.nowMs;
    this.#tokens = options.burst;
    this.#filledMs = deps.nowMs();
  }

  take(): boolean {
    const now = this.#nowMs();
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#filledMs) * this.#perMs);
    this.#filledMs = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
