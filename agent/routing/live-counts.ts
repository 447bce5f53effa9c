/** Live connections per endpoint of the services that are balanced by them. Nothing is kept of an endpoint without any. */
export class LiveCounts {
  readonly #services = new Map<string, Map<string, number>>();

  of(serviceKey: string, endpointKey: string): number {
    return this.#services.get(serviceKey)?.get(endpointKey) ?? 0;
  }

  /** `by` is 1 or -1. */
  change(serviceKey: string, endpointKey: string, by: number): void {
    let counts = this.#services.get(serviceKey);
    if (counts === undefined) {
      counts = new Map();
      this.#services.set(serviceKey, counts);
    }
    const count = (counts.get(endpointKey) ?? 0) + by;
    if (count > 0) counts.set(endpointKey, count);
    else counts.delete(endpointKey);
    if (counts.size === 0) this.#services.delete(serviceKey);
  }
}
