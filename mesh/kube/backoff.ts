export interface BackoffOptions {
  readonly firstMs: number;
  readonly mostMs: number;
}

export const BACKOFF_DEFAULTS: BackoffOptions = { firstMs: 400, mostMs: 30_000 };

/** Waits that double, each spread over half to one and a half of its length: a thousand agents that lost one API server do not come back in step. */
export class Backoff {
  readonly #options: BackoffOptions;
  readonly #random: () => number;
  #nextMs: number;

  constructor(options: BackoffOptions, deps: { readonly random: () => number }) {
    this.#options = options;
    this.#random = deps.random;
    this.#nextMs = options.firstMs;
  }

  /** Milliseconds to wait now; no less than the server asked for. */
  next(atLeastMs = 0): number {
    const spread = 0.5 + this.#random();
    const ms = Math.max(this.#nextMs * spread, atLeastMs * (1 + this.#random() / 4));
    this.#nextMs = Math.min(this.#nextMs * 2, this.#options.mostMs);
    return ms;
  }

  reset(): void {
    this.#nextMs = this.#options.firstMs;
  }
}
