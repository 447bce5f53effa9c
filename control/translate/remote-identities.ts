import { isDeepStrictEqual } from 'node:util';

interface Contribution {
  readonly services: readonly string[];
  readonly identity: string;
}

/** Identities of the endpoints that each service has in other networks. */
export class RemoteIdentities {
  /** By service: how many workloads show each identity. */
  readonly #counts: Map<string, Map<string, number>>;
  readonly #ofWorkload: Map<string, Contribution>;

  constructor() {
    this.#counts = new Map();
    this.#ofWorkload = new Map();
  }

  /** Takes what a workload contributes now; null: it is gone, or at home. Gives the services whose identities may have changed. */
  set(uid: string, contribution: Contribution | null): readonly string[] {
    const before = this.#ofWorkload.get(uid);
    if (isDeepStrictEqual(before ?? null, contribution)) return [];
    const changed: string[] = [];
    for (const service of before?.services ?? [])
      if (this.#count(service, before!.identity, -1) === 0) changed.push(service);
    for (const service of contribution?.services ?? [])
      if (this.#count(service, contribution!.identity, 1) === 1) changed.push(service);
    if (contribution === null) this.#ofWorkload.delete(uid);
    else this.#ofWorkload.set(uid, contribution);
    return changed;
  }

  identitiesOf(service: string): readonly string[] {
    return [...(this.#counts.get(service)?.keys() ?? [])].sort();
  }

  #count(service: string, identity: string, by: 1 | -1): number {
    const counts = this.#counts.get(service) ?? new Map<string, number>();
    const count = (counts.get(identity) ?? 0) + by;
    if (count === 0) counts.delete(identity);
    else counts.set(identity, count);
    if (counts.size === 0) this.#counts.delete(service);
    else this.#counts.set(service, counts);
    return count;
  }
}
