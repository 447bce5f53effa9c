import { istio } from '../../mesh/proto/index.js';
import {
  type Model,
  type RuleTrafficPolicy,
  type Service,
  type ServiceEntry,
  type Visibility,
  visibilityOfService,
} from '../model/index.js';
import { serviceDnsExtension, trafficPolicyExtension } from './extensions.js';
import { loadBalancingOf } from './load-balancing.js';
import {
  addressAlias,
  addressBytes,
  entryResourceName,
  serviceHostname,
  serviceResourceName,
} from './names.js';
import { appProtocolOf, tcpPorts } from './ports.js';
import type { Resource, TranslateOptions } from './types.js';
import type { AutoVip } from './vip-pool.js';

const { IPFamilies } = istio.workload;
const WireVisibility = istio.workload.Service.Visibility;
const AUTO_ALLOCATE = 'networking.istio.io/enable-autoallocate-ip';

/** What else decides a service's resource, whatever kind of object it is made of. */
export interface ServiceContext {
  readonly model: Model;
  /** That of VIPs. */
  readonly network: string;
  /** Of endpoints in other networks: their gateway picks among them, so that a client must take any of them (hbone-and-wds.md 1.7). */
  readonly remoteIdentities: readonly string[];
  readonly options: TranslateOptions;
}

type ServiceResource = Resource<istio.workload.Service.$Properties>;

/** The `istio.workload.Service` of a Service; null if nobody may see it. One of type ExternalName is there for DNS only. */
export function translateService(service: Service, context: ServiceContext): ServiceResource | null {
  const { model, network, options } = context;
  const visibility = visibilityOfService(service).visibility;
  if (visibility === 'none') return null;
  const hostname = serviceHostname(service, options);
  const isAlias = service.type === 'ExternalName';
  const addresses = isAlias ? [] : service.clusterIPs;
  const rule = model.ruleFor(service.namespace, hostname);
  return {
    name: serviceResourceName(service, options),
    aliases: addresses.map((address) => addressAlias(network, address)),
    follows: [],
    message: {
      name: service.name,
      namespace: service.namespace,
      hostname,
      addresses: addresses.map((address) => ({ network, address: addressBytes(address) })),
      ports: isAlias ? [] : portsOfService(service),
      subjectAltNames: [...context.remoteIdentities],
      loadBalancing: loadBalancingOf({
        isLocal: service.internalTrafficPolicy === 'Local',
        isPassthrough: false,
        takesUnhealthy: service.publishNotReadyAddresses,
        distribution: service.trafficDistribution,
        annotations: service.annotations,
        namespace: model.namespace(service.namespace),
        failover: rule?.trafficPolicy?.failover ?? null,
      }),
      ipFamilies: ipFamiliesOf(service),
      canonical: true,
      visibility: visibilityOf(visibility),
      extensions: extensionsOf(
        rule?.trafficPolicy ?? ownPolicyOf(service),
        service.externalName,
        service.ports,
      ),
    },
  };
}

/** One `istio.workload.Service` for each host that is the entry's own. `autoVip` gives those without an address one. */
export function translateEntry(
  entry: ServiceEntry,
  context: (resourceName: string) => ServiceContext,
  autoVip: (resourceName: string) => AutoVip | null,
): readonly ServiceResource[] {
  if (entry.visibility === 'none') return [];
  return entry.hosts.flatMap((host) => {
    const name = entryResourceName(entry, host);
    const hostContext = context(name);
    if (!hostContext.model.ownsHost(entry, host)) return [];
    const vip = entryNeedsVip(entry, host) ? autoVip(name) : null;
    return [hostOfEntry(entry, host, vip, hostContext)];
  });
}

/** Label on the entry before the rule of mesh-apis.md 2.5. */
export function entryNeedsVip(entry: ServiceEntry, host: string): boolean {
  if (entry.addresses.length > 0 || host.startsWith('*.') || entry.resolution === 'NONE') return false;
  return entry.labels[AUTO_ALLOCATE] !== 'false';
}

function hostOfEntry(
  entry: ServiceEntry,
  host: string,
  vip: AutoVip | null,
  { model, network, remoteIdentities }: ServiceContext,
): ServiceResource {
  const automatic = vip === null ? [] : [vip.ipv4, vip.ipv6];
  const addresses = [...entry.addresses, ...automatic.map((address) => ({ address, prefixLength: null }))];
  const rule = model.ruleFor(entry.namespace, host);
  return {
    name: entryResourceName(entry, host),
    aliases: addresses.flatMap(({ address, prefixLength }) =>
      prefixLength === null ? [addressAlias(network, address)] : [],
    ),
    follows: [],
    message: {
      name: entry.name,
      namespace: entry.namespace,
      hostname: host,
      addresses: addresses.map((address) => wireVip(address, network)),
      ports: portsOfEntry(entry),
      subjectAltNames: [...new Set([...entry.subjectAltNames, ...remoteIdentities])],
      loadBalancing: loadBalancingOf({
        isLocal: false,
        isPassthrough: entry.resolution === 'NONE',
        takesUnhealthy: false,
        distribution: '',
        annotations: entry.annotations,
        namespace: model.namespace(entry.namespace),
        failover: rule?.trafficPolicy?.failover ?? null,
      }),
      canonical: model.isCanonical(entry, host),
      visibility: visibilityOf(entry.visibility),
      extensions: extensionsOf(
        rule?.trafficPolicy ?? null,
        '',
        entry.ports.map((port) => ({ ...port, protocol: 'tcp' })),
      ),
    },
  };
}

function wireVip(
  { address, prefixLength }: ServiceEntry['addresses'][number],
  network: string,
): istio.workload.NetworkAddress.$Properties {
  const length = prefixLength === null ? {} : { length: prefixLength };
  return { network, address: addressBytes(address), ...length };
}

/** A named target port is 0: each workload has its own. */
function portsOfService(service: Service): istio.workload.Port.$Properties[] {
  return tcpPorts(service).map(({ name, port, targetPort, appProtocol }) => ({
    servicePort: port,
    targetPort: typeof targetPort === 'number' ? targetPort : 0,
    appProtocol: appProtocolOf(appProtocol, name),
  }));
}

function portsOfEntry(entry: ServiceEntry): istio.workload.Port.$Properties[] {
  return entry.ports.map(({ name, port, targetPort, protocol }) => ({
    servicePort: port,
    targetPort,
    appProtocol: appProtocolOf(protocol, name),
  }));
}

/** sessionAffinity, where no DestinationRule says otherwise. */
function ownPolicyOf(service: Service): RuleTrafficPolicy | null {
  return service.sessionAffinity === 'None' ? null : STICKY;
}

const STICKY: RuleTrafficPolicy = {
  loadBalancer: 'consistent-source',
  failover: null,
  connectTimeoutMs: 0,
  maxConnectionAgeMs: 0,
  outlierDetection: null,
};

function extensionsOf(
  policy: RuleTrafficPolicy | null,
  externalName: string,
  ports: readonly { readonly name: string; readonly port: number; readonly protocol: string }[],
): istio.workload.Extension.$Properties[] {
  return [...trafficPolicyExtension(policy), ...serviceDnsExtension(externalName, ports)];
}

function visibilityOf(visibility: Visibility): istio.workload.Service.Visibility {
  return visibility === 'namespace' ? WireVisibility.NAMESPACE : WireVisibility.PUBLIC;
}

function ipFamiliesOf(service: Service): istio.workload.IPFamilies {
  const families = new Set(service.ipFamilies);
  if (families.size === 2) return IPFamilies.DUAL;
  if (families.has('IPv4')) return IPFamilies.IPV4_ONLY;
  return families.has('IPv6') ? IPFamilies.IPV6_ONLY : IPFamilies.AUTOMATIC;
}
