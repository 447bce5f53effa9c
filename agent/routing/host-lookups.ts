import { lookup, Resolver } from 'node:dns/promises';
import { tryCanonicalAddress } from '../../mesh/common/address.js';
import type { HostnameAnswer } from './hostnames.js';

/** Of one record: an address, and for how long it may be kept. */
interface AddressRecord {
  readonly address: string;
  readonly ttlMs: number;
}

/** All addresses of a name; rejects where it has none or nobody answers. */
export type HostLookup = (hostname: string) => Promise<readonly AddressRecord[]>;

export interface HostLookupsOptions {
  /** Bounds of how long an answer counts. @default 5 s */
  readonly minTtlMs?: number;
  /** @default 5 min */
  readonly maxTtlMs?: number;
  /** When nobody answers, the last answer goes on for this long. @default 10 min */
  readonly maxStaleMs?: number;
  /** Asked at once; more fail until others have ended. @default 64 */
  readonly maxInFlight?: number;
  /** Names remembered; the oldest goes first. @default 1024 */
  readonly maxNames?: number;
}

interface Known {
  readonly addresses: readonly string[];
  readonly untilMs: number;
}

/** The main thread's side of hostname endpoints (ServiceEntry resolution DNS): asks the node's resolver, once for all workers. */
export class HostLookups {
  readonly #options: Required<HostLookupsOptions>;
  readonly #lookup: HostLookup;
  readonly #nowMs: () => number;
  readonly #known = new Map<string, Known>();
  readonly #inFlight = new Map<string, Promise<HostnameAnswer>>();

  constructor(
    options: HostLookupsOptions,
    deps: { readonly nowMs: () => number; readonly lookup?: HostLookup },
  ) {
    this.#options = {
      minTtlMs: 5_000,
      maxTtlMs: 300_000,
      maxStaleMs: 600_000,
      maxInFlight: 64,
      maxNames: 1024,
      ...options,
    };
    this.#lookup = deps.lookup ?? systemLookup();
    this.#nowMs = deps.nowMs;
  }

  /** Never rejects: a name without addresses has none. */
  async resolve(hostname: string): Promise<HostnameAnswer> {
    const known = this.#known.get(hostname);
    const leftMs = known === undefined ? 0 : known.untilMs - this.#nowMs();
    if (known !== undefined && leftMs > 0) return { hostname, addresses: known.addresses, ttlMs: leftMs };
    const inFlight = this.#inFlight.get(hostname);
    if (inFlight !== undefined) return await inFlight;
    if (this.#inFlight.size >= this.#options.maxInFlight) return this.#lastOf(hostname);
    const asked = this.#askFor(hostname);
    this.#inFlight.set(hostname, asked);
    return await asked.finally(() => this.#inFlight.delete(hostname));
  }

  async #askFor(hostname: string): Promise<HostnameAnswer> {
    const { minTtlMs, maxTtlMs, maxNames } = this.#options;
    let records: readonly AddressRecord[];
    try {
      records = await this.#lookup(hostname);
    } catch {
      return this.#lastOf(hostname);
    }
    if (records.length === 0) return this.#lastOf(hostname);
    const addresses = records.flatMap(({ address }) => tryCanonicalAddress(address) ?? []);
    const ttlMs = Math.min(maxTtlMs, Math.max(minTtlMs, Math.min(...records.map((one) => one.ttlMs))));
    this.#known.delete(hostname);
    if (this.#known.size >= maxNames) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(hostname, { addresses, untilMs: this.#nowMs() + ttlMs });
    return { hostname, addresses, ttlMs };
  }

  /** Nobody answers, or with nothing: what was known last, if that is not too long ago. */
  #lastOf(hostname: string): HostnameAnswer {
    const known = this.#known.get(hostname);
    const isUsable = known !== undefined && this.#nowMs() < known.untilMs + this.#options.maxStaleMs;
    if (!isUsable) this.#known.delete(hostname);
    return { hostname, addresses: isUsable ? known.addresses : [], ttlMs: this.#options.minTtlMs };
  }
}

/** What the files of the node say comes after DNS, which knows how long an answer counts. */
const untimedTtlMs = 30_000;
/** Each takes one of the four threads that files and keys need, too, for as long as the node's resolver takes. */
const maxNodeLookups = 2;

function systemLookup(): HostLookup {
  const resolver = new Resolver({ timeout: 1_000, tries: 2 });
  let underWay = 0;
  return async (hostname) => {
    const answers = await Promise.allSettled([
      resolver.resolve4(hostname, { ttl: true }),
      resolver.resolve6(hostname, { ttl: true }),
    ]);
    const records = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    if (records.length > 0) return records.map(({ address, ttl }) => ({ address, ttlMs: ttl * 1_000 }));
    if (underWay === maxNodeLookups) return [];
    underWay++;
    try {
      const found = await lookup(hostname, { all: true });
      return found.map(({ address }) => ({ address, ttlMs: untimedTtlMs }));
    } finally {
      underWay--;
    }
  };
}
