import { isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import { tryParseSpiffeId } from '../../mesh/identity/index.js';
import { identityOf, type Service, serviceKeyOf, type Workload } from '../../mesh/store/index.js';
import { hashOf } from './hash.js';
import { preferredOf } from './locality.js';
import type { HboneRoute } from './types.js';

/** A workload as one endpoint of a service, at one port. */
export class Endpoint {
  /** Names it among all that the service may have; the same as long as it is there. */
  readonly key: string;
  readonly hash: number;
  readonly set: EndpointSet;
  readonly workload: Workload;
  /** Null: known by `workload.hostname` only, whose addresses are asked for when a connection needs one. */
  readonly to: SocketAddress | null;
  readonly port: number;
  /** What its certificate may show, its own identity first. */
  readonly identities: readonly string[];
  /** On another network than its clients: its address, if it has one, means nothing here. */
  readonly isRemote: boolean;
  /** Of a service that was addressed, if it speaks HBONE: the same for all connections, made by the first. */
  route: HboneRoute | null = null;

  constructor(set: EndpointSet, workload: Workload, address: string | null, port: number) {
    this.key = workload.addresses.length > 0 ? workload.uid : `${workload.uid} ${address ?? ''}`;
    this.hash = hashOf(this.key);
    this.set = set;
    this.workload = workload;
    this.isRemote = workload.network !== set.network;
    this.to = address === null ? null : { address, port };
    this.port = port;
    this.identities = [identityOf(workload), ...set.names];
  }
}

/** What a set of endpoints is for. */
export interface EndpointQuery {
  readonly service: Service;
  readonly source: Workload;
  /** A service port, or, of a waypoint, the port of its HBONE servers. */
  readonly port: number;
  readonly isGateway: boolean;
  /** Of the address that was dialled: an endpoint of both families gets the same. */
  readonly wantsIpv6: boolean;
}

/** The endpoints of a service that a source may use for one port; made once, and used until the service or one of its workloads changes. */
export class EndpointSet {
  readonly service: Service;
  readonly serviceKey: string;
  /** Of its clients. */
  readonly network: string;
  /** SPIFFE identities that any of its endpoints may show instead of its own. */
  readonly names: readonly string[];
  readonly endpoints: readonly Endpoint[];
  /** Endpoint by endpoint, the sum of capacities up to it. */
  readonly capacitySums: Float64Array;
  /** True: live connections are counted for its choice. */
  readonly countsLive: boolean;
  /** Which endpoint each client address has, where the service wants that; bounded by who fills it. */
  readonly byClient = new Map<string, Endpoint>();

  constructor(query: EndpointQuery, workloads: readonly Workload[]) {
    const { service, source } = query;
    this.service = service;
    this.network = source.network;
    this.serviceKey = serviceKeyOf(service);
    this.names = service.subjectAltNames.filter((name) => tryParseSpiffeId(name) !== null);
    this.countsLive = service.trafficPolicy?.loadBalancer === 'least-connections';
    const usable = workloads.filter((workload) => isUsable(workload, query, this.serviceKey));
    this.endpoints = preferredOf(usable, source, service).map(
      (workload) =>
        new Endpoint(this, workload, addressFor(workload, query), portOf(workload, query, this.serviceKey)!),
    );
    this.capacitySums = new Float64Array(this.endpoints.length);
    let sum = 0;
    for (const [index, { workload }] of this.endpoints.entries()) {
      sum += workload.capacity;
      this.capacitySums[index] = sum;
    }
  }
}

/** What is on another network may have no address: its gateway has. */
function addressFor(workload: Workload, { service, source, wantsIpv6 }: EndpointQuery): string | null {
  const address = chooseAddress(workload.addresses, service, wantsIpv6) ?? null;
  return address === null && workload.network !== source.network ? '0.0.0.0' : address;
}

/** Sheet 6, "Endpoint filter". What is on another network is reached through its gateway only, never by its address. */
function isUsable(workload: Workload, query: EndpointQuery, serviceKey: string): boolean {
  const { service, source } = query;
  if (workload.capacity === 0) return false;
  if (!workload.healthy && service.loadBalancing?.healthPolicy !== 'allow-all') return false;
  if (portOf(workload, query, serviceKey) === undefined) return false;
  if (workload.network !== source.network)
    return workload.networkGateway !== null && workload.tunnelProtocol === 'hbone';
  if (workload.addresses.length === 0) return workload.hostname !== '';
  return chooseAddress(workload.addresses, service, query.wantsIpv6) !== undefined;
}

/** The workload's own port map says first; 0 there is a named port that the workload lacks. */
function portOf(workload: Workload, query: EndpointQuery, serviceKey: string): number | undefined {
  if (query.isGateway) return query.port;
  return (
    targetPort(workload.services.get(serviceKey) ?? [], query.port) ??
    targetPort(query.service.ports, query.port)
  );
}

function targetPort(ports: Service['ports'], servicePort: number): number | undefined {
  const found = ports.find((port) => port.servicePort === servicePort);
  return found === undefined || found.targetPort === 0 ? undefined : found.targetPort;
}

/** Of the service's family if it is of one; else the family asked for; else the first. */
export function chooseAddress(
  addresses: readonly string[],
  service: Service,
  wantsIpv6: boolean,
): string | undefined {
  if (service.ipFamilies === 'ipv4') return addresses.find((address) => !isIpv6(address));
  if (service.ipFamilies === 'ipv6') return addresses.find((address) => isIpv6(address));
  return addresses.find((address) => isIpv6(address) === wantsIpv6) ?? addresses[0];
}
