import type { Baggage } from '../../mesh/hbone/index.js';
import type { Workload } from '../../mesh/store/index.js';

const known = new WeakMap<Workload, Baggage>();

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
