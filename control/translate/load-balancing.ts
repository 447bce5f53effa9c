import type { Labels } from '../../mesh/manifests/index.js';
import { istio } from '../../mesh/proto/index.js';
import type { Namespace, Scope as ScopeName } from '../model/index.js';

const { Mode, Scope, HealthPolicy } = istio.workload.LoadBalancing;
const DISTRIBUTION = 'networking.istio.io/traffic-distribution';

export interface Preferences {
  /** internalTrafficPolicy: Local. */
  readonly isLocal: boolean;
  /** Goes where the client wants. */
  readonly isPassthrough: boolean;
  /** publishNotReadyAddresses. */
  readonly takesUnhealthy: boolean;
  /** spec.trafficDistribution. */
  readonly distribution: string;
  readonly annotations: Labels;
  readonly namespace: Namespace | undefined;
  /** Of a DestinationRule's localityLbSetting; null: it has none. */
  readonly failover: readonly ScopeName[] | null;
}

/** mesh-apis.md 2.16, in its order of precedence, and between its first and second a DestinationRule. */
export function loadBalancingOf(what: Preferences): istio.workload.LoadBalancing.$Properties | null {
  const healthPolicy = what.takesUnhealthy ? HealthPolicy.ALLOW_ALL : HealthPolicy.ONLY_HEALTHY;
  if (what.isPassthrough) return { mode: Mode.PASSTHROUGH, healthPolicy };
  if (what.isLocal) return { routingPreference: [Scope.NODE], mode: Mode.STRICT, healthPolicy };
  const scopes = what.failover?.map((scope) => SCOPES[scope]) ?? scopesOfDistribution(what);
  if (scopes.length > 0) return { routingPreference: scopes, mode: Mode.FAILOVER, healthPolicy };
  return what.takesUnhealthy ? { healthPolicy } : null;
}

const SCOPES: Readonly<Record<ScopeName, istio.workload.LoadBalancing.Scope>> = {
  region: Scope.REGION,
  zone: Scope.ZONE,
  subzone: Scope.SUBZONE,
  node: Scope.NODE,
  cluster: Scope.CLUSTER,
  network: Scope.NETWORK,
};
const ZONAL = [Scope.NETWORK, Scope.REGION, Scope.ZONE];

/** Whether the text has a meaning; 'Any' is the API's word for none. */
export function isDistribution(text: string): boolean {
  return ['', 'Any', 'PreferClose', 'PreferSameZone', 'PreferSameNode'].includes(text);
}

function scopesOfDistribution({
  distribution,
  annotations,
  namespace,
}: Preferences): istio.workload.LoadBalancing.Scope[] {
  switch (distribution || annotations[DISTRIBUTION] || namespace?.annotations[DISTRIBUTION]) {
    case 'PreferClose':
    case 'PreferSameZone':
      return ZONAL;
    case 'PreferSameNode':
      return [...ZONAL, Scope.SUBZONE, Scope.NODE];
    default:
      return [];
  }
}
