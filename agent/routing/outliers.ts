import type { OutlierDetection } from '../../mesh/store/index.js';

/** However often it was left out (mesh-apis.md 3.3). */
const maxEjectionMs = 300_000;

interface Record {
  failuresInRow: number;
  ejections: number;
  outUntilMs: number;
}

export interface OutlierOptions {
  /** Endpoints with failures that are remembered; the oldest goes first. @default 4096 */
  readonly maxTracked?: number;
}

/**
 * Endpoints to which connecting keeps failing are left out for a while: the n-th time n × as long. Per worker; only endpoints that fail are
 * remembered, so that nothing is looked up while all is well.
 */
export class Outliers {
  readonly #maxTracked: number;
  readonly #nowMs: () => number;
  /** By service key, by endpoint key. */
  readonly #services = new Map<string, Map<string, Record>>();
  #tracked = 0;
  /** Since the start. */
  ejections = 0;

  constructor(options: OutlierOptions, deps: { readonly nowMs: () => number }) {
    this.#maxTracked = options.maxTracked ?? 4096;
    this.#nowMs = deps.nowMs;
  }

  get tracked(): number {
    return this.#tracked;
  }

  /** True: some endpoint of the service has failed lately, so `isOut` is worth asking. */
  knows(serviceKey: string): boolean {
    return this.#tracked > 0 && this.#services.has(serviceKey);
  }

  isOut(serviceKey: string, endpointKey: string): boolean {
    const record = this.#services.get(serviceKey)?.get(endpointKey);
    return record !== undefined && record.outUntilMs > this.#nowMs();
  }

  /** A connect failed. `endpoints`: how many the service has here; `rule.maxEjectionPercent` of them may be out at once, but always one. */
  failed(serviceKey: string, endpointKey: string, endpoints: number, rule: OutlierDetection): void {
    if (rule.consecutiveConnectFailures === 0) return;
    const nowMs = this.#nowMs();
    const record = this.#recordOf(serviceKey, endpointKey);
    // Connects that were under way when it was left out say nothing new.
    if (record.outUntilMs > nowMs || ++record.failuresInRow < rule.consecutiveConnectFailures) return;
    const allowed = Math.max(1, Math.floor((endpoints * rule.maxEjectionPercent) / 100));
    if (this.#outOf(serviceKey, nowMs) >= allowed) return;
    record.failuresInRow = 0;
    record.ejections++;
    record.outUntilMs =
      nowMs + Math.min(rule.baseEjectionMs * record.ejections, Math.max(maxEjectionMs, rule.baseEjectionMs));
    this.ejections++;
  }

  /** One connect that works: the row is broken. How often it was out is forgotten when it has been in for as long as the longest ejection. */
  succeeded(serviceKey: string, endpointKey: string): void {
    if (this.#tracked === 0) return;
    const records = this.#services.get(serviceKey);
    const record = records?.get(endpointKey);
    if (records === undefined || record === undefined) return;
    record.failuresInRow = 0;
    if (record.ejections > 0 && this.#nowMs() < record.outUntilMs + maxEjectionMs) return;
    this.#forget(serviceKey, records, endpointKey);
  }

  #outOf(serviceKey: string, nowMs: number): number {
    let out = 0;
    for (const record of this.#services.get(serviceKey)?.values() ?? []) if (record.outUntilMs > nowMs) out++;
    return out;
  }

  #recordOf(serviceKey: string, endpointKey: string): Record {
    const known = this.#services.get(serviceKey)?.get(endpointKey);
    if (known !== undefined) return known;
    if (this.#tracked >= this.#maxTracked) this.#forgetOldest();
    let records = this.#services.get(serviceKey);
    if (records === undefined) {
      records = new Map();
      this.#services.set(serviceKey, records);
    }
    const record = { failuresInRow: 0, ejections: 0, outUntilMs: Number.NEGATIVE_INFINITY };
    records.set(endpointKey, record);
    this.#tracked++;
    return record;
  }

  #forgetOldest(): void {
    for (const [serviceKey, records] of this.#services)
      for (const endpointKey of records.keys()) {
        this.#forget(serviceKey, records, endpointKey);
        return;
      }
  }

  #forget(serviceKey: string, records: Map<string, Record>, endpointKey: string): void {
    if (records.delete(endpointKey)) this.#tracked--;
    if (records.size === 0) this.#services.delete(serviceKey);
  }
}
