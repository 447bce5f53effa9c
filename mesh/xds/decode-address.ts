import { messageOf } from '../common/errors.js';
import { istio } from '../proto/index.js';
import {
  type GatewayAddress,
  type Port,
  type Service,
  serviceKeyOf,
  type Vip,
  type Workload,
} from '../store/index.js';
import {
  readAccessLog,
  readOutboundPolicy,
  readServiceDns,
  readTrafficPolicy,
  readWorkloadDns,
} from './decode-extensions.js';
import { Problems, readAddress, readEnum, readName, readPort, readRange } from './fields.js';

type WireWorkload = istio.workload.Workload.$Properties;
type WireService = istio.workload.Service.$Properties;
type WireGateway = istio.workload.GatewayAddress.$Properties;
type WirePort = istio.workload.Port.$Properties;

export type SoundAddress =
  | { readonly kind: 'workload'; readonly workload: Workload }
  | { readonly kind: 'service'; readonly service: Service };

export type DecodedAddress =
  | SoundAddress
  /** `place`: what could be read of it, with a `defect`; null: nothing. */
  | { readonly kind: 'rejected'; readonly problems: readonly string[]; readonly place: SoundAddress | null };

/** Reads and checks one `istio.workload.Address` (sheet 3.5) that came under `name`; every problem is collected. */
export function decodeAddress(name: string, bytes: Uint8Array): DecodedAddress {
  const problems = new Problems();
  let decoded: SoundAddress | null = null;
  try {
    const { workload, service } = istio.workload.Address.decode(bytes);
    if (workload != null) decoded = { kind: 'workload', workload: readWorkload(name, workload, problems) };
    else if (service != null) decoded = { kind: 'service', service: readService(name, service, problems) };
    else problems.add('type', 'is neither workload nor service');
  } catch (error) {
    problems.add('bytes', messageOf(error));
  }
  const [defect] = problems.list;
  if (decoded !== null && defect === undefined) return decoded;
  return { kind: 'rejected', problems: problems.list, place: decoded && placeOf(name, decoded, defect!) };
}

/** Under the name that it came with, so that it goes with it. */
function placeOf(name: string, decoded: SoundAddress, defect: string): SoundAddress {
  if (decoded.kind === 'workload') {
    const { workload } = decoded;
    const addresses = workload.addresses.filter((address) => address !== '');
    return { kind: 'workload', workload: { ...workload, uid: name, addresses, defect } };
  }
  const slash = name.indexOf('/');
  const [namespace, hostname] = [name.slice(0, Math.max(0, slash)), name.slice(slash + 1)];
  // A prefix that makes no sense must not stand for everybody's addresses.
  const vips = decoded.service.vips.filter(
    ({ address, prefixLength }) => address !== '' && (prefixLength === null || prefixLength > 0),
  );
  return { kind: 'service', service: { ...decoded.service, namespace, hostname, vips, defect } };
}

function readWorkload(name: string, wire: WireWorkload, problems: Problems): Workload {
  const uid = wire.uid ?? '';
  const outboundPolicy = readOutboundPolicy(wire.extensions, problems);
  const dns = readWorkloadDns(wire.extensions, problems);
  const accessLog = readAccessLog(wire.extensions, problems);
  if (uid !== name) problems.add('uid', `is ${JSON.stringify(uid)}, which is not the resource name`);
  return {
    uid,
    name: wire.name ?? '',
    // Network gateways may have none; their identity then matches no certificate.
    namespace: readName(wire.namespace, 'namespace', problems, true),
    addresses: (wire.addresses ?? []).map((bytes, i) => readAddress(bytes, `addresses[${i}]`, problems)),
    hostname: wire.hostname ?? '',
    network: wire.network ?? '',
    // LEGACY_ISTIO_MTLS has no meaning here: plain text would be worse than refusing it.
    tunnelProtocol: readEnum(wire.tunnelProtocol, ['none', 'hbone'] as const, 'tunnel_protocol', problems),
    trustDomain: readName(wire.trustDomain || 'cluster.local', 'trust_domain', problems),
    serviceAccount: readName(wire.serviceAccount || 'default', 'service_account', problems),
    node: wire.node ?? '',
    canonicalName: wire.canonicalName ?? '',
    canonicalRevision: wire.canonicalRevision ?? '',
    workloadType: readEnum(
      wire.workloadType,
      ['deployment', 'cronjob', 'pod', 'job'] as const,
      'workload_type',
      problems,
    ),
    workloadName: wire.workloadName ?? '',
    nativeTunnel: wire.nativeTunnel ?? false,
    authorizationPolicies: wire.authorizationPolicies ?? [],
    healthy: readEnum(wire.status, ['healthy', 'unhealthy'] as const, 'status', problems) === 'healthy',
    clusterId: wire.clusterId || 'Kubernetes',
    waypoint: readGateway(wire.waypoint, 'waypoint', problems),
    networkGateway: readGateway(wire.networkGateway, 'network_gateway', problems),
    services: readMembership(wire, problems),
    applicationTunnel: readApplicationTunnel(wire, problems),
    locality: {
      region: wire.locality?.region ?? '',
      zone: wire.locality?.zone ?? '',
      subzone: wire.locality?.subzone ?? '',
    },
    hostNetwork:
      readEnum(wire.networkMode, ['standard', 'host'] as const, 'network_mode', problems) === 'host',
    capacity: wire.capacity == null ? 1 : (wire.capacity.value ?? 0),
    ...(outboundPolicy === null ? {} : { outboundPolicy }),
    ...(accessLog === null ? {} : { accessLog }),
    ...(dns === null ? {} : { dns }),
  };
}

function readMembership(wire: WireWorkload, problems: Problems): Map<string, readonly Port[]> {
  const services = new Map<string, readonly Port[]>();
  for (const [key, list] of Object.entries(wire.services ?? {})) {
    const field = `services[${JSON.stringify(key)}]`;
    if (!/^[^/]+\/[^/]+$/.test(key)) problems.add(field, 'key is not ns/hostname');
    services.set(key, readPorts(list.ports, field, problems));
  }
  return services;
}

function readApplicationTunnel(wire: WireWorkload, problems: Problems): Workload['applicationTunnel'] {
  if (wire.applicationTunnel == null) return null;
  return {
    protocol: readEnum(
      wire.applicationTunnel.protocol,
      ['none', 'proxy'] as const,
      'application_tunnel.protocol',
      problems,
    ),
    port: readPort(wire.applicationTunnel.port, 'application_tunnel.port', problems, 0),
  };
}

function readService(name: string, wire: WireService, problems: Problems): Service {
  const trafficPolicy = readTrafficPolicy(wire.extensions, problems);
  const dns = readServiceDns(wire.extensions, problems);
  const namespace = readName(wire.namespace, 'namespace', problems);
  const hostname = readName(wire.hostname, 'hostname', problems);
  const key = serviceKeyOf({ namespace, hostname });
  if (key !== name) problems.add('hostname', `${JSON.stringify(key)} is not the resource name`);
  return {
    name: wire.name ?? '',
    namespace,
    hostname,
    vips: (wire.addresses ?? []).map((address, i) => readVip(address, `addresses[${i}]`, problems)),
    ports: readPorts(wire.ports, 'ports', problems),
    subjectAltNames: wire.subjectAltNames ?? [],
    waypoint: readGateway(wire.waypoint, 'waypoint', problems),
    weightedWaypoints: readWeightedWaypoints(wire, problems),
    loadBalancing: readLoadBalancing(wire.loadBalancing, problems),
    ipFamilies: readEnum(
      wire.ipFamilies,
      ['automatic', 'ipv4', 'ipv6', 'dual'] as const,
      'ip_families',
      problems,
    ),
    canonical: wire.canonical ?? false,
    visibility: readEnum(wire.visibility, ['public', 'namespace'] as const, 'visibility', problems),
    ...(trafficPolicy === null ? {} : { trafficPolicy }),
    ...(dns === null ? {} : { dns }),
  };
}

/** A prefix length that leaves one address is a single address. */
function readVip(wire: istio.workload.NetworkAddress.$Properties, field: string, problems: Problems): Vip {
  const network = wire.network ?? '';
  if (wire.length == null)
    return { network, address: readAddress(wire.address, field, problems), prefixLength: null };
  const { address, prefixLength } = readRange(wire.address, wire.length, field, problems);
  const isSingle = prefixLength === (address.includes(':') ? 128 : 32);
  return { network, address, prefixLength: isSingle ? null : prefixLength };
}

function readWeightedWaypoints(wire: WireService, problems: Problems): Service['weightedWaypoints'] {
  return (wire.weightedWaypoints ?? []).flatMap((weighted, i) => {
    const field = `weighted_waypoints[${i}]`;
    const destination = readGateway(weighted.destination, field, problems);
    if (destination === null) problems.add(field, 'has no destination');
    return destination === null ? [] : [{ destination, weight: weighted.weight ?? 0 }];
  });
}

function readLoadBalancing(
  wire: istio.workload.LoadBalancing.$Properties | null | undefined,
  problems: Problems,
): Service['loadBalancing'] {
  if (wire == null) return null;
  const scopes = [null, 'region', 'zone', 'subzone', 'node', 'cluster', 'network'] as const;
  const modes = ['unspecified', 'strict', 'failover', 'passthrough'] as const;
  return {
    routingPreference: (wire.routingPreference ?? []).map((scope, i) =>
      readEnum(scope, scopes, `load_balancing.routing_preference[${i}]`, problems),
    ),
    mode: readEnum(wire.mode, modes, 'load_balancing.mode', problems),
    healthPolicy: readEnum(
      wire.healthPolicy,
      ['only-healthy', 'allow-all'] as const,
      'load_balancing.health_policy',
      problems,
    ),
  };
}

function readPorts(ports: readonly WirePort[] | null | undefined, field: string, problems: Problems): Port[] {
  return (ports ?? []).map((port, i) => ({
    servicePort: readPort(port.servicePort, `${field}[${i}].service_port`, problems, 1),
    targetPort: readPort(port.targetPort, `${field}[${i}].target_port`, problems, 0),
  }));
}

function readGateway(
  wire: WireGateway | null | undefined,
  field: string,
  problems: Problems,
): GatewayAddress | null {
  if (wire == null) return null;
  const hboneMtlsPort = readPort(wire.hboneMtlsPort, `${field}.hbone_mtls_port`, problems, 1);
  if (wire.hostname != null) {
    const namespace = readName(wire.hostname.namespace, `${field}.hostname.namespace`, problems);
    const hostname = readName(wire.hostname.hostname, `${field}.hostname.hostname`, problems);
    return { destination: { kind: 'hostname', hostname: { namespace, hostname } }, hboneMtlsPort };
  }
  if (wire.address != null) {
    const address = readAddress(wire.address.address, `${field}.address`, problems);
    return { destination: { kind: 'address', network: wire.address.network ?? '', address }, hboneMtlsPort };
  }
  problems.add(field, 'has no destination');
  return null;
}
