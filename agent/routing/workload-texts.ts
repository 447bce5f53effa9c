import type { Baggage } from '../../mesh/hbone/index.js';
import { identityOf, type Workload } from '../../mesh/store/index.js';

/**
 * Texts that are made once per workload: as keys of maps, new ones would be hashed for every connection. Pure memos, which nobody can see,
 * and so the one thing here that stands at module level.
 */
const known = new WeakMap<Workload, Baggage>();
const identities = new WeakMap<Workload, string>();

/** `identityOf`. */
export function identityTextOf(workload: Workload): string {
  let identity = identities.get(workload);
  if (identity === undefined) {
    identity = identityOf(workload);
    identities.set(workload, identity);
  }
  return identity;
}

/** What the `baggage` header says of a workload (hbone-and-wds.md 1.3). One object per workload, so that its text is made once. */
export function baggageOf(workload: Workload): Baggage {
  const found = known.get(workload);
  if (found !== undefined) return found;
  const { locality } = workload;
  const baggage = omitEmpty({
    clusterName: workload.clusterId,
    namespace: workload.namespace,
    workloadType: workload.workloadType,
    workloadName: workload.workloadName,
    serviceName: workload.canonicalName,
    serviceVersion: workload.canonicalRevision,
    region: locality.region,
    zone: locality.zone,
  });
  known.set(workload, baggage);
  return baggage;
}

function omitEmpty(baggage: Baggage): Baggage {
  return Object.fromEntries(Object.entries(baggage).filter(([, value]) => value !== '')) as Baggage;
}
