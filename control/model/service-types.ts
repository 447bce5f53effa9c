import type { Labels } from '../../mesh/manifests/index.js';
import type { Limitation } from './report.js';
import type { Protocol } from './types.js';

/** What objects of the mesh's own kinds have in common. */
export interface MeshKindFields {
  readonly namespace: string;
  readonly name: string;
  /** metadata.creationTimestamp; '' where there is none. Among rivals the oldest wins (`compareAge`). */
  readonly createdAt: string;
  /** What of it is accepted but not in force. */
  readonly limits: readonly Limitation[];
}

export interface LocalityFields {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

/** What a WorkloadEntry and an endpoint inside a ServiceEntry say alike (mesh-apis.md 2.5). */
export interface EndpointFields {
  /** Canonical IP address; '' where it is a name, or where only its network's gateway reaches it. */
  readonly address: string;
  /** DNS name to resolve when connecting; '' where it has an address. */
  readonly hostname: string;
  /** By name of the service's port. */
  readonly ports: Readonly<Record<string, number>>;
  readonly labels: Labels;
  /** '': the mesh's. */
  readonly network: string;
  readonly locality: LocalityFields;
  /** Share of the traffic; 0: not given, as 1. */
  readonly weight: number;
  /** '': not given. */
  readonly serviceAccount: string;
}

export interface WorkloadEntry extends MeshKindFields, EndpointFields {
  readonly kind: 'WorkloadEntry';
  /** Condition Healthy is not False. */
  readonly healthy: boolean;
}

export interface ServiceEntryPort {
  readonly name: string;
  readonly port: number;
  readonly targetPort: number;
  /** As written: HTTP, TCP, TLS …; upper case. */
  readonly protocol: string;
}

export interface EntryAddress {
  readonly address: string;
  /** Null: a single address. */
  readonly prefixLength: number | null;
}

export interface ServiceEntry extends MeshKindFields {
  readonly kind: 'ServiceEntry';
  readonly labels: Labels;
  readonly annotations: Labels;
  /** Lower case; `*.example.org` for all below. */
  readonly hosts: readonly string[];
  readonly addresses: readonly EntryAddress[];
  /** TCP only. */
  readonly ports: readonly ServiceEntryPort[];
  readonly location: 'MESH_EXTERNAL' | 'MESH_INTERNAL';
  readonly resolution: 'NONE' | 'STATIC' | 'DNS' | 'DNS_ROUND_ROBIN' | 'DYNAMIC_DNS';
  readonly endpoints: readonly EndpointFields[];
  /** Null: none. */
  readonly selector: Labels | null;
  readonly visibility: Visibility;
  readonly subjectAltNames: readonly string[];
  /** status.addresses: what was given to hosts automatically, by the leading controller. Not of the ranges for that: left out. */
  readonly automatic: readonly { readonly host: string; readonly address: string }[];
}

/** exportTo: who sees it. `none`: nobody. */
export type Visibility = 'public' | 'namespace' | 'none';

export type Scope = 'region' | 'zone' | 'subzone' | 'node' | 'cluster' | 'network';

/** What of a DestinationRule's trafficPolicy acts at L4 (mesh-apis.md 2.3, 3.2-3.4). */
export interface RuleTrafficPolicy {
  readonly loadBalancer: 'random' | 'least-connections' | 'consistent-source';
  /** Null: the service's own preference; empty: none. */
  readonly failover: readonly Scope[] | null;
  /** 0: the agent's default. */
  readonly connectTimeoutMs: number;
  /** 0: never. */
  readonly maxConnectionAgeMs: number;
  /** Null: the agent's default. */
  readonly outlierDetection: {
    readonly consecutiveConnectFailures: number;
    readonly baseEjectionMs: number;
    readonly maxEjectionPercent: number;
  } | null;
}

export interface DestinationRule extends MeshKindFields {
  readonly kind: 'DestinationRule';
  /** As written, lower case: short, full, or `*.example.org`, or `*`. */
  readonly host: string;
  /** exportTo is `.`: clients of its own namespace only. */
  readonly isPrivate: boolean;
  /** Null: nothing that acts at L4. */
  readonly trafficPolicy: RuleTrafficPolicy | null;
}

/** A Sidecar is read for one thing only: what its clients may reach outside the mesh. */
export interface Sidecar extends MeshKindFields {
  readonly kind: 'Sidecar';
  /** Null: not said. */
  readonly outbound: 'allow-any' | 'registry-only' | null;
  /** With a workloadSelector it is not for the whole namespace, and is not in force here. */
  readonly isForNamespace: boolean;
}

/** What agents write of connections. */
export interface AccessLogRules {
  readonly disabled: boolean;
  /** Of every thousand connections that ended well so many have their line, 0-1000. */
  readonly samplingPerMille: number;
  /** The least that is written: `info` connections that ended well, `warn` those refused, `error` those that failed. */
  readonly level: 'debug' | 'info' | 'warn' | 'error';
}

export interface Telemetry extends MeshKindFields {
  readonly kind: 'Telemetry';
  /** With a selector or targets it is not, and is not in force here. */
  readonly isForNamespace: boolean;
  /** Null: not said. */
  readonly accessLog: AccessLogRules | null;
}

export interface SliceEndpoint {
  readonly addresses: readonly string[];
  readonly ready: boolean;
  readonly nodeName: string;
  readonly zone: string;
  readonly hostname: string;
}

/** discovery.k8s.io/v1, in force for services without a selector. */
export interface EndpointSlice {
  readonly kind: 'EndpointSlice';
  readonly namespace: string;
  readonly name: string;
  /** Of the same namespace; '': of none. */
  readonly serviceName: string;
  readonly ports: readonly { readonly name: string; readonly port: number; readonly protocol: Protocol }[];
  readonly endpoints: readonly SliceEndpoint[];
  readonly limits: readonly Limitation[];
}
