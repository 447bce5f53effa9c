import type { Service, Workload } from '../../mesh/store/index.js';

type Balancing = NonNullable<Service['loadBalancing']>;
type Scope = Balancing['routingPreference'][number];

/** Those within the service's locality rule (hbone-and-wds.md 6): STRICT wants every scope equal to the source's, FAILOVER keeps the highest rank only. */
export function preferredOf(
  endpoints: readonly Workload[],
  source: Workload,
  service: Service,
): readonly Workload[] {
  const balancing = service.loadBalancing;
  if (balancing === null || !hasLocalityRule(service)) return endpoints;
  const scopes = balancing.routingPreference;
  const ranks = endpoints.map((workload) => localityRank(workload, source, scopes));
  const wanted =
    balancing.mode === 'strict'
      ? scopes.length
      : ranks.reduce((best, rank) => Math.max(best, rank), Number.NEGATIVE_INFINITY);
  return endpoints.filter((_, index) => ranks[index] === wanted);
}

/** False: every source is served alike. */
export function hasLocalityRule(service: Service): boolean {
  const mode = service.loadBalancing?.mode;
  return mode === 'strict' || mode === 'failover';
}

/** All that a rule may ask of a source. */
export function localityTextOf(workload: Workload): string {
  return JSON.stringify([workload.locality, workload.node, workload.clusterId, workload.network]);
}

/** Number of leading scopes in which both agree. NETWORK, when first, outranks all the rest but does not stop the count. */
function localityRank(workload: Workload, source: Workload, scopes: readonly Scope[]): number {
  let rank = 0;
  let startsWithOtherNetwork = false;
  for (const [index, scope] of scopes.entries()) {
    if (scopeValue(workload, scope) === scopeValue(source, scope)) rank++;
    else if (index === 0 && scope === 'network') startsWithOtherNetwork = true;
    else break;
  }
  return startsWithOtherNetwork ? rank - scopes.length : rank;
}

function scopeValue(workload: Workload, scope: Scope): string {
  switch (scope) {
    case 'region':
      return workload.locality.region;
    case 'zone':
      return `${workload.locality.region}/${workload.locality.zone}`;
    case 'subzone':
      return `${workload.locality.region}/${workload.locality.zone}/${workload.locality.subzone}`;
    case 'node':
      return workload.node;
    case 'cluster':
      return workload.clusterId;
    case 'network':
      return workload.network;
  }
}
