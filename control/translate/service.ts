import { istio } from '../../mesh/proto/index.js';
import type { Namespace, Service } from '../model/index.js';
import { addressAlias, addressBytes, serviceHostname, serviceResourceName } from './names.js';
import { appProtocolOf, tcpPorts } from './ports.js';
import type { Resource, TranslateOptions } from './types.js';

const { IPFamilies, LoadBalancing } = istio.workload;
const DISTRIBUTION = 'networking.istio.io/traffic-distribution';

/** Everything that decides a Service's resource. */
export interface ServiceInput {
  readonly service: Service;
  readonly namespace: Namespace | undefined;
}

/** The `istio.workload.Service` of a Service; null for ExternalName, which has nothing to tunnel to (hbone-and-wds.md 3.5). */
export function translateService(
  input: ServiceInput,
  options: TranslateOptions,
): Resource<istio.workload.Service.$Properties> | null {
  const { service } = input;
  if (service.type === 'ExternalName') return null;
  return {
    name: serviceResourceName(service, options),
    aliases: service.clusterIPs.map((address) => addressAlias(address, options)),
    follows: [],
    message: {
      name: service.name,
      namespace: service.namespace,
      hostname: serviceHostname(service, options),
      addresses: service.clusterIPs.map((address) => ({
        network: options.network,
        address: addressBytes(address),
      })),
      ports: tcpPorts(service).map((port) => ({
        servicePort: port.port,
        targetPort: typeof port.targetPort === 'number' ? port.targetPort : 0,
        appProtocol: appProtocolOf(port),
      })),
      loadBalancing: loadBalancingOf(input),
      ipFamilies: ipFamiliesOf(service),
      canonical: true,
    },
  };
}

/** mesh-apis.md 2.16, in its order of precedence. */
function loadBalancingOf({
  service,
  namespace,
}: ServiceInput): istio.workload.LoadBalancing.$Properties | null {
  const healthPolicy = service.publishNotReadyAddresses
    ? LoadBalancing.HealthPolicy.ALLOW_ALL
    : LoadBalancing.HealthPolicy.ONLY_HEALTHY;
  const { Mode, Scope } = LoadBalancing;
  if (service.internalTrafficPolicy === 'Local')
    return { routingPreference: [Scope.NODE], mode: Mode.STRICT, healthPolicy };
  const zonal = [Scope.NETWORK, Scope.REGION, Scope.ZONE];
  switch (
    service.trafficDistribution ||
    service.annotations[DISTRIBUTION] ||
    namespace?.annotations[DISTRIBUTION]
  ) {
    case 'PreferClose':
    case 'PreferSameZone':
      return { routingPreference: zonal, mode: Mode.FAILOVER, healthPolicy };
    case 'PreferSameNode':
      return { routingPreference: [...zonal, Scope.SUBZONE, Scope.NODE], mode: Mode.FAILOVER, healthPolicy };
    default:
      return service.publishNotReadyAddresses ? { healthPolicy } : null;
  }
}

function ipFamiliesOf(service: Service): istio.workload.IPFamilies {
  const families = new Set(service.ipFamilies);
  if (families.size === 2) return IPFamilies.DUAL;
  if (families.has('IPv4')) return IPFamilies.IPV4_ONLY;
  return families.has('IPv6') ? IPFamilies.IPV6_ONLY : IPFamilies.AUTOMATIC;
}
