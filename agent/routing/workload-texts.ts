import type { Baggage } from '../../mesh/hbone/index.js';
import { identityOf, type Workload } from '../../mesh/store/index.js';

/** Texts that are made once per workload: as keys of maps, new ones would be hashed for every connection. One per worker. */
export class WorkloadTexts {
  readonly #baggages = new WeakMap<Workload, Baggage>();
  readonly #identities = new WeakMap<Workload, string>();

  /** `identityOf`. */
  identityOf(workload: Workload): string {
    let identity = this.#identities.get(workload);
    if (identity === undefined) {
      identity = identityOf(workload);
      this.#identities.set(workload, identity);
    }
    return identity;
  }

  /** What the `baggage` header says of a workload (hbone-and-wds.md 1.3). One object per workload, so that its text is made once. */
  baggageOf(workload: Workload): Baggage {
    let baggage = this.#baggages.get(workload);
    if (baggage === undefined) {
      baggage = baggageOf(workload);
      this.#baggages.set(workload, baggage);
    }
    return baggage;
  }
}

function baggageOf(workload: Workload): Baggage {
  const { locality } = workload;
  return omitEmpty({
    clusterName: workload.clusterId,
    namespace: workload.namespace,
    workloadType: workload.workloadType,
    workloadName: workload.workloadName,
    serviceName: workload.canonicalName,
    serviceVersion: workload.canonicalRevision,
    region: locality.region,
    zone: locality.zone,
  });
}

function omitEmpty(baggage: Baggage): Baggage {
  return Object.fromEntries(Object.entries(baggage).filter(([, value]) => value !== '')) as Baggage;
}
