import type { HostnameSource } from './types.js';

/** A name that was never answered is asked for again after this. */
const askAgainMs = 2_000;

/** What main found out of a hostname. */
export interface HostnameAnswer {
  readonly hostname: string;
  /** Canonical text; empty: it has none, or asking failed. */
  readonly addresses: readonly string[];
  readonly ttlMs: number;
}

export interface HostnamesOptions {
  /** Names that are remembered; the oldest goes first. @default 1024 */
  readonly maxNames?: number;
}

interface Known {
  /** Null: asked, not answered. */
  readonly addresses: readonly string[] | null;
  readonly untilMs: number;
}

/** A worker's copy of what main has resolved. A name whose time is over is asked for again; meanwhile its connections wait. */
export class Hostnames implements HostnameSource {
  readonly #maxNames: number;
  readonly #nowMs: () => number;
  readonly #ask: (hostname: string) => void;
  readonly #known = new Map<string, Known>();

  constructor(
    options: HostnamesOptions,
    deps: { readonly nowMs: () => number; readonly ask: (hostname: string) => void },
  ) {
    this.#maxNames = options.maxNames ?? 1024;
    this.#nowMs = deps.nowMs;
    this.#ask = deps.ask;
  }

  get size(): number {
    return this.#known.size;
  }

  addressesOf(hostname: string): readonly string[] | null {
    const known = this.#known.get(hostname);
    if (known !== undefined && known.untilMs > this.#nowMs()) return known.addresses;
    this.#keep(hostname, { addresses: null, untilMs: this.#nowMs() + askAgainMs });
    this.#ask(hostname);
    return null;
  }

  answered({ hostname, addresses, ttlMs }: HostnameAnswer): void {
    this.#keep(hostname, { addresses, untilMs: this.#nowMs() + ttlMs });
  }

  #keep(hostname: string, known: Known): void {
    this.#known.delete(hostname);
    if (this.#known.size >= this.#maxNames) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(hostname, known);
  }
}
