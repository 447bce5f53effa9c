import { isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import { tryParseSpiffeId } from '../../mesh/identity/index.js';
import {
  type GatewayAddress,
  type Service,
  type Store,
  serviceKeyOf,
  type Workload,
} from '../../mesh/store/index.js';
import { identityTextOf } from './workload-texts.js';

/** Where one outbound connection goes. A plain object that logs itself. */
export type Route =
  /** Nobody we know: TCP to the original destination, unchanged. */
  | { readonly kind: 'passthrough'; readonly to: SocketAddress; readonly service: Service | null }
  /** A workload that does not speak HBONE: TCP, in clear. */
  | {
      readonly kind: 'direct';
      readonly to: SocketAddress;
      readonly workload: Workload;
      readonly service: Service | null;
    }
  | HboneRoute
  /** Known, but not to be reached: the connection is reset. */
  | { readonly kind: 'refused'; readonly reason: string; readonly service: Service | null };

/** CONNECT `target` through the HBONE server at `nextHop`. */
export interface HboneRoute {
  readonly kind: 'hbone';
  readonly via: 'workload' | 'waypoint';
  readonly nextHop: SocketAddress;
  /** What the CONNECT asks for: the workload's target port, or, of a waypoint, the original destination. */
  readonly target: SocketAddress;
  /** Ordered: the server must show one of them. */
  readonly expectedIdentities: readonly string[];
  /** Whose HBONE server it is. */
  readonly workload: Workload;
  readonly service: Service | null;
}

export interface RouteOptions {
  /** The node's network name; '' is a network like any other. */
  readonly network: string;
}

const hbonePort = 15008;
/** Our own listeners in every captured pod: never a target (hbone-and-wds.md 1.1, trampolining). */
export const illegalPorts: ReadonlySet<number> = new Set([15001, 15006, 15008, 15053]);

/**
 * The routing decision for a connection of `source` to `destination` (hbone-and-wds.md, section 6). Pure but for `random` (0 ≤ x < 1), which
 * picks among endpoints.
 */
export function route(
  store: Store,
  options: RouteOptions,
  source: Workload,
  destination: SocketAddress,
  random: () => number,
): Route {
  const service = store.serviceByVip(options.network, destination.address, source.namespace);
  if (service !== undefined) return routeToService(store, source, service, destination, random);
  const workload = store.workloadByAddress(options.network, destination.address);
  if (workload === undefined) return { kind: 'passthrough', to: destination, service: null };
  if (workload.defect !== undefined)
    return refused(null, `workload ${workload.uid} could not be read: ${workload.defect}`);
  return routeToWorkload(store, source, workload, destination);
}

function routeToService(
  store: Store,
  source: Workload,
  service: Service,
  destination: SocketAddress,
  random: () => number,
): Route {
  if (service.defect !== undefined)
    return refused(service, `service ${serviceKeyOf(service)} could not be read: ${service.defect}`);
  const waypoint = waypointOf(service, random);
  if (waypoint !== null) return viaWaypoint(store, waypoint, service, destination);
  if (service.loadBalancing?.mode === 'passthrough') return { kind: 'passthrough', to: destination, service };
  if (!service.ports.some((port) => port.servicePort === destination.port))
    return refused(
      service,
      `service ${service.namespace}/${service.hostname} has no port ${destination.port}`,
    );
  const endpoint = pickEndpoint(store, source, service, destination, random);
  if (endpoint === null)
    return refused(service, `service ${service.namespace}/${service.hostname} has no usable endpoint`);
  return toWorkload(endpoint.workload, endpoint.to, service);
}

/** By weight where there are several; the plain one where all weights are 0. */
function waypointOf(service: Service, random: () => number): GatewayAddress | null {
  const total = service.weightedWaypoints.reduce((sum, weighted) => sum + weighted.weight, 0);
  let at = random() * total;
  for (const weighted of service.weightedWaypoints) {
    at -= weighted.weight;
    if (at < 0) return weighted.destination;
  }
  return service.waypoint;
}

function routeToWorkload(store: Store, source: Workload, workload: Workload, to: SocketAddress): Route {
  if (workload.waypoint !== null && !isWaypointItself(store, workload.waypoint, source))
    return viaWaypoint(store, workload.waypoint, null, to);
  return toWorkload(workload, to, null);
}

function toWorkload(workload: Workload, to: SocketAddress, service: Service | null): Route {
  if (workload.tunnelProtocol === 'none') return { kind: 'direct', to, workload, service };
  return {
    kind: 'hbone',
    via: 'workload',
    nextHop: { address: to.address, port: hbonePort },
    target: to,
    expectedIdentities: [identityTextOf(workload), ...spiffeNames(service)],
    workload,
    service,
  };
}

/** The target is the original destination; an unusable waypoint fails the connection, it never falls back to direct. */
function viaWaypoint(
  store: Store,
  gateway: GatewayAddress,
  service: Service | null,
  original: SocketAddress,
): Route {
  const found = resolveGateway(store, gateway);
  const address = found?.workload.addresses[0];
  if (found === null || address === undefined)
    return refused(service, 'its waypoint is not known or has no address');
  return {
    kind: 'hbone',
    via: 'waypoint',
    nextHop: { address, port: gateway.hboneMtlsPort },
    target: original,
    expectedIdentities: [identityTextOf(found.workload), ...spiffeNames(found.service)],
    workload: found.workload,
    service,
  };
}

function resolveGateway(
  store: Store,
  gateway: GatewayAddress,
): { workload: Workload; service: Service | null } | null {
  const { destination } = gateway;
  const service =
    destination.kind === 'hostname'
      ? store.serviceByHostname(destination.hostname.namespace, destination.hostname.hostname)
      : store.serviceByVip(destination.network, destination.address, '');
  if (service !== undefined) {
    const workload = store.endpointsOf(service).find((endpoint) => endpoint.healthy);
    return workload === undefined ? null : { workload, service };
  }
  if (destination.kind === 'hostname') return null;
  const workload = store.workloadByAddress(destination.network, destination.address);
  return workload === undefined ? null : { workload, service: null };
}

function isWaypointItself(store: Store, gateway: GatewayAddress, source: Workload): boolean {
  const found = resolveGateway(store, gateway);
  if (found === null) return false;
  const candidates = found.service === null ? [found.workload] : store.endpointsOf(found.service);
  return candidates.some((candidate) => candidate.uid === source.uid);
}

interface Candidate {
  readonly workload: Workload;
  readonly to: SocketAddress;
}

/** Capacity-weighted random choice among usable endpoints of the best locality; null when there is none. */
function pickEndpoint(
  store: Store,
  source: Workload,
  service: Service,
  destination: SocketAddress,
  random: () => number,
): Candidate | null {
  const candidates: Candidate[] = [];
  for (const workload of preferred(store.endpointsOf(service), source, service)) {
    const to = endpointAddress(workload, service, destination);
    if (to !== null && workload.capacity > 0) candidates.push({ workload, to });
  }
  let total = 0;
  for (const candidate of candidates) total += candidate.workload.capacity;
  let at = random() * total;
  for (const candidate of candidates) {
    at -= candidate.workload.capacity;
    if (at < 0) return candidate;
  }
  return candidates[candidates.length - 1] ?? null;
}

/** Healthy endpoints within the service's locality rule: STRICT wants every scope equal, FAILOVER keeps the highest rank only. */
function preferred(endpoints: readonly Workload[], source: Workload, service: Service): readonly Workload[] {
  const balancing = service.loadBalancing;
  const usable =
    balancing?.healthPolicy === 'allow-all' ? endpoints : endpoints.filter((workload) => workload.healthy);
  if (balancing === null || (balancing.mode !== 'strict' && balancing.mode !== 'failover')) return usable;
  const scopes = balancing.routingPreference;
  const ranks = usable.map((workload) => localityRank(workload, source, scopes));
  const wanted = balancing.mode === 'strict' ? scopes.length : Math.max(...ranks);
  return usable.filter((_, index) => ranks[index] === wanted);
}

type Scope = 'region' | 'zone' | 'subzone' | 'node' | 'cluster' | 'network';

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

/** Endpoint address and target port for the service port asked for, or null where the workload has neither. */
function endpointAddress(
  workload: Workload,
  service: Service,
  destination: SocketAddress,
): SocketAddress | null {
  const own = workload.services.get(serviceKeyOf(service));
  const port = targetPort(own ?? [], destination.port) ?? targetPort(service.ports, destination.port);
  const address = chooseAddress(workload.addresses, service, destination.address);
  return port === undefined || address === undefined ? null : { address, port };
}

function targetPort(ports: Service['ports'], servicePort: number): number | undefined {
  const found = ports.find((port) => port.servicePort === servicePort);
  return found === undefined || found.targetPort === 0 ? undefined : found.targetPort;
}

/** The service's family if it is of one; else the family asked for; else the first. */
function chooseAddress(
  addresses: readonly string[],
  service: Service,
  requested: string,
): string | undefined {
  if (service.ipFamilies === 'ipv4') return addresses.find((address) => !isIpv6(address));
  if (service.ipFamilies === 'ipv6') return addresses.find((address) => isIpv6(address));
  return addresses.find((address) => isIpv6(address) === isIpv6(requested)) ?? addresses[0];
}

function spiffeNames(service: Service | null): readonly string[] {
  return service === null ? [] : service.subjectAltNames.filter((name) => tryParseSpiffeId(name) !== null);
}

function refused(service: Service | null, reason: string): Route {
  return { kind: 'refused', reason, service };
}
