/**
 * Answers of a pod's own resolvers, for as long as they say (RFC 2308 for those that say "no"). One per pod: a pod can forge what comes into its
 * own namespace, and must not answer for others. Bounded by entries and bytes; the oldest go first.
 */
import { withId } from './message.js';
import { type Query, type Response, type ResponseRecord, rcode, recordType } from './types.js';

export interface CacheOptions {
  readonly maxEntries: number;
  readonly maxBytes: number;
  /** However long a server allows. */
  readonly maxTtlSeconds: number;
}

export interface CacheDeps {
  readonly nowMs: () => number;
}

interface Entry {
  readonly response: Response;
  readonly storedMs: number;
  readonly endsMs: number;
}

/** Key and bookkeeping, roughly. */
const entryOverheadBytes = 256;

export class ResponseCache {
  readonly #options: CacheOptions;
  readonly #nowMs: () => number;
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor(options: CacheOptions, deps: CacheDeps) {
    this.#options = options;
    this.#nowMs = deps.nowMs;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Bytes held, with overhead. */
  get bytes(): number {
    return this.#bytes;
  }

  /** As if it came now: the client's id and spelling, what is left of each TTL. Null: not known. */
  get(query: Query): Response | null {
    const key = keyOf(query);
    const entry = key === null ? undefined : this.#entries.get(key);
    if (entry === undefined) return null;
    if (this.#nowMs() >= entry.endsMs) {
      this.#delete(key!, entry);
      return null;
    }
    return this.#aged(entry, query);
  }

  put(query: Query, response: Response): void {
    const key = keyOf(query);
    const ttlSeconds = Math.min(lifetimeSeconds(response, query.question.type), this.#options.maxTtlSeconds);
    if (key === null || ttlSeconds <= 0) return;
    const cost = costOf(response);
    if (cost > this.#options.maxBytes) return;
    const old = this.#entries.get(key);
    if (old !== undefined) this.#delete(key, old);
    const storedMs = this.#nowMs();
    this.#entries.set(key, { response, storedMs, endsMs: storedMs + ttlSeconds * 1000 });
    this.#bytes += cost;
    for (const [oldest, entry] of this.#entries) {
      if (this.#entries.size <= this.#options.maxEntries && this.#bytes <= this.#options.maxBytes) return;
      this.#delete(oldest, entry);
    }
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #delete(key: string, entry: Entry): void {
    this.#entries.delete(key);
    this.#bytes -= costOf(entry.response);
  }

  #aged({ response, storedMs }: Entry, query: Query): Response {
    const bytes = withId(response.bytes, query.id);
    const ageSeconds = Math.floor((this.#nowMs() - storedMs) / 1000);
    for (const { ttlAt, ttlSeconds } of response.records)
      bytes.writeUInt32BE(Math.max(0, ttlSeconds - ageSeconds), ttlAt);
    return { ...response, id: query.id, bytes };
  }
}

/** Null: not to be remembered, as options (cookies, client subnets, …) are this client's own. */
function keyOf({ question, recursionDesired, checkingDisabled, edns }: Query): string | null {
  if (edns?.hasOptions) return null;
  const flags = `${Number(recursionDesired)}${Number(checkingDisabled)}${edns === null ? '-' : Number(edns.wantsDnssec)}`;
  return `${flags} ${question.class} ${question.type} ${question.name}`;
}

/** 0: not to be remembered. */
function lifetimeSeconds(response: Response, type: number): number {
  if (response.truncated) return 0;
  if (response.rcode !== rcode.noError && response.rcode !== rcode.nameError) return 0;
  const answers = response.records.filter(({ section }) => section === 'answer');
  const isPositive =
    response.rcode === rcode.noError &&
    answers.some((record) => record.type === type || type === recordType.any);
  const ttls = answers.map(({ ttlSeconds }) => ttlSeconds);
  if (!isPositive) ttls.push(negativeSeconds(response));
  return ttls.length === 0 ? 0 : Math.min(...ttls);
}

/** RFC 2308 5: the smaller of the SOA's own TTL and its last field; without SOA a "no" is not kept. */
function negativeSeconds({ records, bytes }: Response): number {
  const soa = records.find(({ section, type }) => section === 'authority' && type === recordType.soa);
  return soa === undefined || soa.dataBytes < 22 ? 0 : Math.min(soa.ttlSeconds, minimumOf(bytes, soa));
}

function minimumOf(bytes: Buffer, { dataAt, dataBytes }: ResponseRecord): number {
  return bytes.readUInt32BE(dataAt + dataBytes - 4);
}

function costOf(response: Response): number {
  // Each record that was read is an object beside the bytes.
  return response.bytes.length + entryOverheadBytes + 64 * response.records.length;
}
