import type { SocketAddress } from '../common/address.js';

/** What the mesh knows, as agents and waypoints hold it: decoded from WDS (hbone-and-wds.md 3.5), immutable, addresses as canonical text. */

export interface NamespacedHostname {
  readonly namespace: string;
  readonly hostname: string;
}

export interface GatewayAddress {
  readonly destination:
    | { readonly kind: 'hostname'; readonly hostname: NamespacedHostname }
    | { readonly kind: 'address'; readonly network: string; readonly address: string };
  readonly hboneMtlsPort: number;
}

export interface Port {
  readonly servicePort: number;
  /** 0: a named port, looked up in the workload's own map. */
  readonly targetPort: number;
}

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

export interface Workload {
  /** Primary key and resource name. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly string[];
  readonly hostname: string;
  readonly network: string;
  readonly tunnelProtocol: 'none' | 'hbone';
  readonly trustDomain: string;
  readonly serviceAccount: string;
  readonly node: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly workloadType: 'deployment' | 'cronjob' | 'pod' | 'job';
  readonly workloadName: string;
  readonly nativeTunnel: boolean;
  /** Keys `ns/name`. */
  readonly authorizationPolicies: readonly string[];
  readonly healthy: boolean;
  readonly clusterId: string;
  readonly waypoint: GatewayAddress | null;
  readonly networkGateway: GatewayAddress | null;
  /** Key `ns/hostname`. */
  readonly services: ReadonlyMap<string, readonly Port[]>;
  readonly applicationTunnel: { readonly protocol: 'none' | 'proxy'; readonly port: number } | null;
  readonly locality: Locality;
  readonly hostNetwork: boolean;
  readonly capacity: number;
  /** To destinations that the mesh does not know (Sidecar outboundTrafficPolicy; extension `culvert.workload.OutboundPolicy`). Absent: allow-any. */
  readonly outboundPolicy?: 'allow-any' | 'registry-only';
  /** A pod's own name under a headless service named `subdomain` (extension `culvert.workload.WorkloadDns`). Absent: it has none. */
  readonly dns?: { readonly hostname: string; readonly subdomain: string };
  /** What is written of its connections (extension `culvert.workload.AccessLogPolicy`). Absent: all. */
  readonly accessLog?: AccessLogPolicy;
  /** Why it cannot be used: it holds the place of one that could not be read, so that nothing goes to its addresses in clear. */
  readonly defect?: string;
}

/**
 * How clients connect to a service: what a DestinationRule's trafficPolicy says at L4 (mesh-apis.md 2.3), sent as the extension
 * `culvert.workload.TrafficPolicy`. Other agents ignore it.
 */
export interface TrafficPolicy {
  /** `random` is weighted by capacity; `consistent-source` keeps a client address at an endpoint as long as that is there. */
  readonly loadBalancer: 'random' | 'least-connections' | 'consistent-source';
  /** 0: the agent's default. */
  readonly connectTimeoutMs: number;
  /** A connection older than this is closed by FIN when it is quiet, and reset a grace period later; 0: never. */
  readonly maxConnectionAgeMs: number;
  /** Null: the agent's default; consecutiveConnectFailures 0: off. */
  readonly outlierDetection: OutlierDetection | null;
}

/** Passive health by connects that fail (DestinationRule outlierDetection, mesh-apis.md 3.3). */
export interface OutlierDetection {
  /** So many in a row leave an endpoint out; 0: never. */
  readonly consecutiveConnectFailures: number;
  /** For so long the first time; then twice, three times … as long. */
  readonly baseEjectionMs: number;
  /** At most this share of a service's endpoints, 0-100. */
  readonly maxEjectionPercent: number;
}

/** What DNS answers for a service's hostname beyond its addresses (extension `culvert.workload.ServiceDns`). */
export interface ServiceDns {
  /** ExternalName: the name that its own is an alias of (CNAME); such a service has no address and no endpoint. '': it is none. */
  readonly externalName: string;
  /** Named ports of all protocols, for SRV. */
  readonly ports: readonly {
    readonly name: string;
    readonly port: number;
    readonly protocol: 'tcp' | 'udp' | 'sctp';
  }[];
}

/** A Telemetry's accessLogging. */
export interface AccessLogPolicy {
  readonly disabled: boolean;
  /** Of every thousand connections that ended well so many have their line, 0-1000. */
  readonly samplingPerMille: number;
  /** The least that is written. */
  readonly level: 'debug' | 'info' | 'warn' | 'error';
}

export interface Vip {
  readonly network: string;
  readonly address: string;
  /** CIDR VIP: prefix length; null for a single address. */
  readonly prefixLength: number | null;
}

export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly vips: readonly Vip[];
  readonly ports: readonly Port[];
  readonly subjectAltNames: readonly string[];
  readonly waypoint: GatewayAddress | null;
  /** If any: pick one by weight; all weights 0 means the plain `waypoint`. Never read as "no waypoint". */
  readonly weightedWaypoints: readonly { readonly destination: GatewayAddress; readonly weight: number }[];
  readonly loadBalancing: {
    readonly routingPreference: readonly ('region' | 'zone' | 'subzone' | 'node' | 'cluster' | 'network')[];
    readonly mode: 'unspecified' | 'strict' | 'failover' | 'passthrough';
    readonly healthPolicy: 'only-healthy' | 'allow-all';
  } | null;
  readonly ipFamilies: 'automatic' | 'ipv4' | 'ipv6' | 'dual';
  readonly canonical: boolean;
  /** `namespace`: only clients of its own namespace see it. */
  readonly visibility: 'public' | 'namespace';
  /** Absent: none is set. */
  readonly trafficPolicy?: TrafficPolicy;
  /** Absent: nothing beyond its addresses and endpoints. */
  readonly dns?: ServiceDns;
  /** As a workload's. */
  readonly defect?: string;
}

export type StringMatch =
  | { readonly kind: 'exact' | 'prefix' | 'suffix'; readonly value: string }
  /** Not empty. */
  | { readonly kind: 'presence' };

export interface AddressRange {
  readonly address: string;
  readonly prefixLength: number;
}

export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** True when every field is (sheet 3.6); one with no field set at all is never true. */
export interface AuthorizationMatch {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  /** Compared with the identity *minus* `spiffe://`. */
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly sourceIps: readonly AddressRange[];
  readonly notSourceIps: readonly AddressRange[];
  readonly destinationIps: readonly AddressRange[];
  readonly notDestinationIps: readonly AddressRange[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
}

/** L4 authorization as the controller sends it (sheet 3.6). */
export interface AuthorizationPolicy {
  /** Resource name `ns/name`; workloads refer to it in `authorizationPolicies`. */
  readonly key: string;
  readonly namespace: string;
  readonly scope: 'global' | 'namespace' | 'workload-selector';
  readonly action: 'allow' | 'deny';
  /** Only logs. */
  readonly dryRun: boolean;
  /** Matches if any group does; a group if all its rules do; a rule if any of its matches does. */
  readonly groups: readonly (readonly (readonly AuthorizationMatch[])[])[];
  /** Why it cannot be evaluated: it then denies everything it may apply to. Null: sound. */
  readonly defect: string | null;
}

/** The policies that apply to a workload as destination: global ones, those of its namespace, those it names (sheet 3.6). */
export interface PolicySet {
  /** By key. Dry-run and defective ones too. */
  readonly policies: readonly AuthorizationPolicy[];
  /** Named by the workload and not here; unknown is not "none". */
  readonly missing: readonly string[];
  /** False: the controller has not told its policies yet, so that there may be others. */
  readonly isComplete: boolean;
}

/** One change to a store, applied in one step: first what is removed, then what is added or replaced. Crosses to workers by structured clone. */
export interface StoreUpdate {
  /** True: this is the whole state; whatever is not named is gone. */
  readonly snapshot: boolean;
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly policies: readonly AuthorizationPolicy[];
  /** From here on policies are known as a whole. Absent in a snapshot: they are; in another update: nothing new. */
  readonly policiesAreComplete?: boolean;
  /** Resource names: a workload uid if one is known, else `ns/hostname`. */
  readonly removed: readonly string[];
  /** Keys `ns/name`. */
  readonly removedPolicies: readonly string[];
}

/** An update that comes in parts. Nothing of it is seen before it is whole. */
export interface StagedUpdate {
  /** In order. The first says whether it is a snapshot. */
  add(part: StoreUpdate): void;
  /** Puts all in force at once: of a snapshot, however large, in no time. */
  commit(): void;
}

/** Read side of the store. Lookups are by index, O(1). */
export interface Store {
  workloadByUid(uid: string): Workload | undefined;
  /** Local pods: namespace, name, service account must all agree (sheet 6.1). */
  workloadOfPod(namespace: string, name: string, serviceAccount: string): Workload | undefined;
  workloadByAddress(network: string, address: string): Workload | undefined;
  /**
   * The service visible to clients in `namespace` that has this VIP, exact before CIDR, by the order of preference of sheet 6.2; undefined where the address is a pod's, and
   * the service neither of the pod's namespace nor of the client's.
   */
  serviceByVip(network: string, address: string, namespace: string): Service | undefined;
  serviceByHostname(namespace: string, hostname: string): Service | undefined;
  /** Those of all namespaces that have this hostname. Valid until the next `apply`. */
  servicesByHostname(hostname: string): readonly Service[];
  /** Workloads that name the service, with their target ports. The list never changes; while it is the same one, so are they. */
  endpointsOf(service: NamespacedHostname): readonly Workload[];
  /** What applies to this workload as destination. One object for all workloads of the same policies, another once one of these has changed. */
  policiesOf(workload: Workload): PolicySet;
  apply(update: StoreUpdate): void;
  /** For an update that is too large for one go: see `partsOf`. */
  stage(): StagedUpdate;
  /** Everything, as one update: what a new worker starts from. */
  snapshot(): StoreUpdate;
}

/** Key of a service, its resource name and its place in `Workload.services`: `ns/hostname`. */
export function serviceKeyOf(service: NamespacedHostname): string {
  return `${service.namespace}/${service.hostname}`;
}

/** SPIFFE identity of a workload: `spiffe://<td>/ns/<ns>/sa/<sa>`. */
export function identityOf(workload: Pick<Workload, 'trustDomain' | 'namespace' | 'serviceAccount'>): string {
  return `spiffe://${workload.trustDomain}/ns/${workload.namespace}/sa/${workload.serviceAccount}`;
}

/** A VIP:port or workload ip:port that a client dialled, as the store resolves it; see agent/routing/route.ts. */
export type Destination = SocketAddress;
