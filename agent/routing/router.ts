import { isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import {
  type GatewayAddress,
  type OutlierDetection,
  type Service,
  type Store,
  serviceKeyOf,
  type Workload,
} from '../../mesh/store/index.js';
import { choose } from './balancer.js';
import { EndpointCache } from './endpoint-cache.js';
import { Endpoint, type EndpointSet } from './endpoint-set.js';
import { LiveCounts } from './live-counts.js';
import { Outliers } from './outliers.js';
import {
  gatewayKeyOf,
  hboneAt,
  hboneTo,
  hboneVia,
  isBehindOneOf,
  isOther,
  isOwnMachine,
  namesOf,
  refused,
  unreadable,
} from './routes.js';
import type { HostnameSource, Route } from './types.js';
import type { WorkloadTexts } from './workload-texts.js';

export interface RouterOptions {
  /** The node's network name; '' is a network like any other. */
  readonly network: string;
  /** Of services that do not say. */
  readonly outlierDetection: OutlierDetection;
}

export interface RouterDeps {
  readonly store: Store;
  readonly texts: WorkloadTexts;
  readonly hostnames: HostnameSource;
  readonly nowMs: () => number;
  /** 0 ≤ x < 1. */
  readonly random: () => number;
}

/** One connection to be routed. */
export interface RouteRequest {
  readonly source: Workload;
  /** What the application dialled. */
  readonly destination: SocketAddress;
  /** The client's own address. */
  readonly client: string;
  /** Keys of endpoints, and of gateways of other networks, that this connection has tried already. */
  readonly tried: readonly string[];
}

/** Where outbound connections go (hbone-and-wds.md, section 6), and what is known of the endpoints from those before. One per worker. */
export class Router {
  readonly outliers: Outliers;
  readonly #options: RouterOptions;
  readonly #deps: RouterDeps;
  readonly #endpoints: EndpointCache;
  readonly #live = new LiveCounts();

  constructor(options: RouterOptions, deps: RouterDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#endpoints = new EndpointCache(deps);
    this.outliers = new Outliers({}, deps);
  }

  route(request: RouteRequest): Route {
    const { source, destination } = request;
    const { store } = this.#deps;
    const service = store.serviceByVip(this.#options.network, destination.address, source.namespace);
    if (service !== undefined) return this.#toService(request, service);
    const workload = store.workloadByAddress(this.#options.network, destination.address);
    if (workload !== undefined) return this.#toAddressed(request, workload);
    if (source.outboundPolicy === 'registry-only')
      return refused(
        null,
        `nothing in the mesh has the address ${destination.address}, and ${source.namespace} may only reach what is (REGISTRY_ONLY)`,
      );
    return { kind: 'passthrough', to: destination, service: null };
  }

  /** As `route`, for a service that was addressed by name: what a gateway is asked for by other networks. `destination` has its port; its address only tells the family. */
  routeToService(request: RouteRequest, service: Service): Route {
    return this.#toService(request, service);
  }

  /** The connection stands. */
  connected({ set, key }: Endpoint): void {
    this.outliers.succeeded(set.serviceKey, key);
  }

  /** The endpoint could not be connected to. */
  failed({ set, key }: Endpoint): void {
    const rule = set.service.trafficPolicy?.outlierDetection ?? this.#options.outlierDetection;
    this.outliers.failed(set.serviceKey, key, set.endpoints.length, rule);
  }

  /** A connection begins to use the endpoint; `left` follows when it is over. */
  joined({ set, key }: Endpoint): void {
    if (set.countsLive) this.#live.change(set.serviceKey, key, 1);
  }

  left({ set, key }: Endpoint): void {
    if (set.countsLive) this.#live.change(set.serviceKey, key, -1);
  }

  #toService(request: RouteRequest, service: Service): Route {
    const { source, destination } = request;
    const name = `service ${service.namespace}/${service.hostname}`;
    if (service.defect !== undefined) return refused(service, `${name} could not be read: ${service.defect}`);
    const waypoint = this.#waypointOf(service);
    if (waypoint !== null) return this.#viaWaypoint(request, waypoint, service);
    if (service.loadBalancing?.mode === 'passthrough') return this.#toOriginal(request, service);
    if (!service.ports.some((port) => port.servicePort === destination.port))
      return refused(service, `${name} has no port ${destination.port}`);
    const wantsIpv6 = isIpv6(destination.address);
    const set = this.#endpoints.ofService(service, source, destination.port, wantsIpv6);
    const picked = this.#pick(set, request, wantsIpv6);
    if (picked === null) return refused(service, `${name} has no usable endpoint${namesOf(set)}`);
    if (!(picked instanceof Endpoint)) return picked;
    if (picked.isRemote) return this.#throughGateway(request, picked, service);
    return this.#toEndpoint(picked, request);
  }

  /** By weight where there are several; the plain one where all weights are 0. */
  #waypointOf(service: Service): GatewayAddress | null {
    if (service.weightedWaypoints.length === 0) return service.waypoint;
    const total = service.weightedWaypoints.reduce((sum, weighted) => sum + weighted.weight, 0);
    let at = this.#deps.random() * total;
    for (const weighted of service.weightedWaypoints) {
      at -= weighted.weight;
      if (at < 0) return weighted.destination;
    }
    return service.waypoint;
  }

  /** Mode PASSTHROUGH. What is known of that address still counts: a workload that speaks HBONE gets nothing in clear. */
  #toOriginal({ destination }: RouteRequest, service: Service): Route {
    const workload = this.#deps.store.workloadByAddress(this.#options.network, destination.address);
    if (workload === undefined) return { kind: 'passthrough', to: destination, service };
    if (workload.defect !== undefined) return unreadable(workload, service);
    return this.#toWorkload(workload, destination, service);
  }

  #toAddressed(request: RouteRequest, workload: Workload): Route {
    if (workload.defect !== undefined) return unreadable(workload, null);
    if (workload.waypoint !== null && !this.#isWaypointItself(workload.waypoint, request.source))
      return this.#viaWaypoint(request, workload.waypoint, null);
    return this.#toWorkload(workload, request.destination, null);
  }

  /** The endpoint of its set, or one that is known by hostname and waits; null: there is none to be used. */
  #pick(
    set: EndpointSet,
    request: RouteRequest,
    wantsIpv6: boolean,
  ): Endpoint | Extract<Route, { kind: 'unresolved' }> | null {
    let { tried } = request;
    for (;;) {
      const endpoint = this.#choose(set, request.client, tried);
      if (endpoint === null || endpoint.to !== null) return endpoint;
      const { hostname } = endpoint.workload;
      const addresses = this.#deps.hostnames.addressesOf(hostname);
      if (addresses === null) return { kind: 'unresolved', hostname, service: set.service };
      const resolved = this.#resolvedOf(endpoint, addresses, tried, wantsIpv6);
      if (resolved !== null) return resolved;
      tried = [...tried, endpoint.key];
    }
  }

  #choose(set: EndpointSet, client: string, tried: readonly string[]): Endpoint | null {
    const { random } = this.#deps;
    const liveOf = (endpoint: Endpoint) => this.#live.of(set.serviceKey, endpoint.key);
    const choice = { set, client, random, liveOf };
    if (tried.length === 0 && !this.outliers.knows(set.serviceKey))
      return choose({ ...choice, mayUse: null });
    const isNew = ({ key }: Endpoint) => !tried.includes(key);
    const isSound = (endpoint: Endpoint) =>
      isNew(endpoint) &&
      !this.outliers.isOut(set.serviceKey, endpoint.key) &&
      !isBehindOneOf(tried, endpoint);
    // All are out: then any is as good as another.
    return choose({ ...choice, mayUse: isSound }) ?? choose({ ...choice, mayUse: isNew });
  }

  /** One of a hostname's addresses, at random (hbone-and-wds.md 6), of the family asked for if there is one. */
  #resolvedOf(
    endpoint: Endpoint,
    addresses: readonly string[],
    tried: readonly string[],
    wantsIpv6: boolean,
  ): Endpoint | null {
    const { set, workload, port } = endpoint;
    const { ipFamilies } = set.service;
    const allowed = addresses
      // That would be the client's own pod.
      .filter((address) => !isOwnMachine(address) && ipFamilies !== (isIpv6(address) ? 'ipv4' : 'ipv6'))
      .map((address) => new Endpoint(set, workload, address, port))
      .filter(({ key }) => !tried.includes(key));
    const sound = allowed.filter(({ key }) => !this.outliers.isOut(set.serviceKey, key));
    const left = sound.length > 0 ? sound : allowed;
    const ofFamily = left.filter(({ to }) => isIpv6(to!.address) === wantsIpv6);
    const from = ofFamily.length > 0 ? ofFamily : left;
    return from[Math.floor(this.#deps.random() * from.length)] ?? null;
  }

  /** What was dialled is dialled if it is one of the workload's own (a VIP may be a range that holds it). */
  #toEndpoint(endpoint: Endpoint, request: RouteRequest): Route {
    const { address } = request.destination;
    const isOwn = isOther(endpoint, address);
    const to = isOwn ? { address, port: endpoint.port } : endpoint.to!;
    if (endpoint.workload.tunnelProtocol === 'none') return this.#inClear(endpoint, to, request);
    if (isOwn) return hboneTo(endpoint, to);
    endpoint.route ??= hboneTo(endpoint, to);
    return endpoint.route;
  }

  /**
   * An endpoint that does not speak HBONE. Whoever named its address (a ServiceEntry, a DNS server) does not say that for somebody else of the mesh
   * who has it now: nothing goes to them in clear.
   */
  #inClear(endpoint: Endpoint, to: SocketAddress, request: RouteRequest): Route {
    const { service } = endpoint.set;
    const { store, texts } = this.#deps;
    const { network } = this.#options;
    const what = `endpoint ${to.address} of service ${serviceKeyOf(service)}`;
    if (isOwnMachine(to.address)) return refused(service, `${what} would be the client itself`);
    const there = store.workloadByAddress(network, to.address);
    if (there?.defect !== undefined) return unreadable(there, service);
    if (there !== undefined && there.tunnelProtocol !== 'none') {
      const { waypoint } = there;
      if (waypoint !== null && !this.#isWaypointItself(waypoint, request.source))
        return this.#viaWaypoint({ ...request, destination: to }, waypoint, service);
      return hboneVia('workload', hboneAt(to), to, [texts.identityOf(there)], there, service, endpoint);
    }
    const virtual =
      there === undefined ? store.serviceByVip(network, to.address, request.source.namespace) : undefined;
    if (virtual !== undefined && virtual !== service && this.#isOfMesh(virtual))
      return refused(service, `${what} is a virtual address of service ${serviceKeyOf(virtual)}`);
    return { kind: 'direct', to, workload: endpoint.workload, service, endpoint };
  }

  /** Some of its endpoints speak HBONE, or we cannot tell. */
  #isOfMesh(service: Service): boolean {
    if (service.defect !== undefined || service.waypoint !== null) return true;
    return this.#deps.store.endpointsOf(service).some(({ tunnelProtocol }) => tunnelProtocol !== 'none');
  }
  #toWorkload(workload: Workload, to: SocketAddress, service: Service | null): Route {
    if (workload.tunnelProtocol === 'none') return { kind: 'direct', to, workload, service, endpoint: null };
    const identities = [this.#deps.texts.identityOf(workload)];
    return hboneVia('workload', hboneAt(to), to, identities, workload, service, null);
  }

  /** Double HBONE (sheet 1.7): only for what was addressed as a service, whose subjectAltNames say who may answer beyond the gateway. */
  #throughGateway({ destination, tried }: RouteRequest, endpoint: Endpoint, service: Service | null): Route {
    const { workload } = endpoint;
    const what = `workload ${workload.uid} is on network ${JSON.stringify(workload.network)}`;
    if (service === null) return refused(null, `${what}, and only services are reached through gateways`);
    const found = this.#gatewayAt(workload.networkGateway!, tried);
    if (found === null) return refused(service, `${what}, whose gateway is not known`);
    const { names } = endpoint.set;
    if (names.length === 0)
      return refused(
        service,
        `${what}, and service ${serviceKeyOf(service)} has no identities to expect there`,
      );
    const { address, port, identity } = found;
    const authority = `${service.hostname}:${destination.port}`;
    const nextHop = { address, port };
    return {
      ...hboneVia('workload', nextHop, destination, names, workload, service, endpoint),
      gateway: { expectedIdentities: [identity], authority, key: gatewayKeyOf(address) },
    };
  }

  #gatewayAt(
    gateway: GatewayAddress,
    tried: readonly string[],
  ): { address: string; port: number; identity: string } | null {
    const { store, texts } = this.#deps;
    const { destination, hboneMtlsPort: port } = gateway;
    const workload =
      destination.kind === 'address'
        ? store.workloadByAddress(destination.network, destination.address)
        : this.#gatewayOf(this.#serviceOf(gateway), tried);
    const address = destination.kind === 'address' ? destination.address : workload?.addresses[0];
    if (workload === undefined || workload.defect !== undefined || address === undefined) return null;
    return { address, port, identity: texts.identityOf(workload) };
  }

  /** One of the gateway's workloads, one that was not tried if there is such a one. */
  #gatewayOf(service: Service | undefined, tried: readonly string[]): Workload | undefined {
    if (service === undefined) return undefined;
    const usable = this.#deps.store
      .endpointsOf(service)
      .filter(({ addresses, healthy }) => healthy && addresses.length > 0);
    const fresh = usable.filter(({ addresses }) => !tried.includes(gatewayKeyOf(addresses[0]!)));
    const from = fresh.length > 0 ? fresh : usable;
    return from[Math.floor(this.#deps.random() * from.length)];
  }

  /** The target is the original destination; an unusable waypoint fails the connection, it never falls back to direct. */
  #viaWaypoint(request: RouteRequest, gateway: GatewayAddress, service: Service | null): Route {
    const { store, texts } = this.#deps;
    const target = request.destination;
    const port = gateway.hboneMtlsPort;
    const behind = this.#serviceOf(gateway);
    if (behind?.defect !== undefined)
      return refused(service, `its waypoint ${serviceKeyOf(behind)} could not be read: ${behind.defect}`);
    if (behind !== undefined) {
      const wantsIpv6 = isIpv6(target.address);
      const set = this.#endpoints.ofGateway(behind, request.source, port, wantsIpv6);
      const picked = this.#pick(set, request, wantsIpv6);
      if (picked === null)
        return refused(service, `its waypoint ${serviceKeyOf(behind)} has no usable endpoint`);
      if (!(picked instanceof Endpoint)) return picked;
      if (picked.isRemote) return this.#throughGateway(request, picked, service);
      const { workload, identities, to } = picked;
      return hboneVia('waypoint', to!, target, identities, workload, service, picked);
    }
    const { destination } = gateway;
    const workload =
      destination.kind === 'hostname'
        ? undefined
        : store.workloadByAddress(destination.network, destination.address);
    const address = workload?.addresses[0];
    if (workload === undefined || address === undefined || workload.network !== request.source.network)
      return refused(service, 'its waypoint is not known or has no address');
    if (workload.defect !== undefined) return unreadable(workload, service);
    const identities = [texts.identityOf(workload)];
    return hboneVia('waypoint', { address, port }, target, identities, workload, service, null);
  }

  #serviceOf({ destination }: GatewayAddress): Service | undefined {
    const { store } = this.#deps;
    return destination.kind === 'hostname'
      ? store.serviceByHostname(destination.hostname.namespace, destination.hostname.hostname)
      : store.serviceByVip(destination.network, destination.address, '');
  }

  #isWaypointItself(gateway: GatewayAddress, source: Workload): boolean {
    const behind = this.#serviceOf(gateway);
    if (behind !== undefined) return source.services.has(serviceKeyOf(behind));
    const { destination } = gateway;
    if (destination.kind === 'hostname') return false;
    return this.#deps.store.workloadByAddress(destination.network, destination.address)?.uid === source.uid;
  }
}
