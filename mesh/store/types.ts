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
  readonly loadBalancing: {
    readonly routingPreference: readonly ('region' | 'zone' | 'subzone' | 'node' | 'cluster' | 'network')[];
    readonly mode: 'unspecified' | 'strict' | 'failover' | 'passthrough';
    readonly healthPolicy: 'only-healthy' | 'allow-all';
  } | null;
  readonly ipFamilies: 'automatic' | 'ipv4' | 'ipv6' | 'dual';
  readonly canonical: boolean;
}

/** One change to a store; applied in one step. */
export interface StoreUpdate {
  /** True: this is the whole state; whatever is not named is gone. */
  readonly snapshot: boolean;
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  /** Resource names: a workload uid, or `ns/hostname`. */
  readonly removed: readonly string[];
}

/** Read side of the store. Lookups are by index, O(1). */
export interface Store {
  workloadByUid(uid: string): Workload | undefined;
  /** Local pods: namespace, name, service account must all agree (sheet 6.1). */
  workloadOfPod(namespace: string, name: string, serviceAccount: string): Workload | undefined;
  workloadByAddress(network: string, address: string): Workload | undefined;
  /** Exact VIP visible to `namespace`, by the order of preference of sheet 6.2. */
  serviceByVip(network: string, address: string, namespace: string): Service | undefined;
  serviceByHostname(namespace: string, hostname: string): Service | undefined;
  /** Workloads that name the service, with their target ports. */
  endpointsOf(service: Service): readonly Workload[];
  apply(update: StoreUpdate): void;
}

/** SPIFFE identity of a workload: `spiffe://<td>/ns/<ns>/sa/<sa>`. */
export function identityOf(workload: Pick<Workload, 'trustDomain' | 'namespace' | 'serviceAccount'>): string {
  return `spiffe://${workload.trustDomain}/ns/${workload.namespace}/sa/${workload.serviceAccount}`;
}

/** A VIP:port or workload ip:port that a client dialled, as the store resolves it; see agent/tunnel/route.ts. */
export type Destination = SocketAddress;
