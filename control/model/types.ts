import type { Labels, PodFields } from '../../mesh/manifests/index.js';
import type { AuthorizationPolicy, PeerAuthentication } from './policies/types.js';
import type {
  DestinationRule,
  EndpointSlice,
  ServiceEntry,
  Sidecar,
  Telemetry,
  WorkloadEntry,
} from './service-types.js';

/** The mesh's objects as the sources give them: checked, addresses canonical, only the fields that are used, plain data. */

export interface Namespace {
  readonly kind: 'Namespace';
  readonly name: string;
  readonly labels: Labels;
  readonly annotations: Labels;
}

export interface Node {
  readonly kind: 'Node';
  /** metadata.uid; may be empty in hand-written manifests. */
  readonly uid: string;
  readonly name: string;
  readonly labels: Labels;
}

export interface ServiceAccount {
  readonly kind: 'ServiceAccount';
  readonly namespace: string;
  readonly name: string;
}

export interface ContainerPort {
  readonly name: string;
  readonly port: number;
  readonly protocol: Protocol;
}

export type Protocol = 'TCP' | 'UDP' | 'SCTP';

export interface Pod extends PodFields {
  /** Annotation `ambient.istio.io/waypoint-inbound-binding`: how the pod takes tunnels; null: as they are (hbone-and-wds.md 1.8). */
  readonly inboundBinding: { readonly protocol: 'NONE' | 'PROXY'; readonly port: number } | null;
  readonly kind: 'Pod';
  readonly namespace: string;
  readonly name: string;
  /** The controller among metadata.ownerReferences. */
  readonly owner: { readonly kind: string; readonly name: string } | null;
  readonly phase: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown';
  /** Condition Ready is True, and it is not being deleted. */
  readonly ready: boolean;
  /** Named ports of containers. */
  readonly ports: readonly ContainerPort[];
  /** Its own DNS name below the headless service `subdomain`; '' where the pod says none. */
  readonly hostname: string;
  readonly subdomain: string;
}

export interface ServicePort {
  readonly name: string;
  readonly port: number;
  /** A number, or the name of a container port. */
  readonly targetPort: number | string;
  readonly protocol: Protocol;
  readonly appProtocol: string;
}

export interface Service {
  readonly kind: 'Service';
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName';
  /** Empty: headless, or no address given. */
  readonly clusterIPs: readonly string[];
  /** Of type ExternalName: the name that it is an alias of; else ''. */
  readonly externalName: string;
  /** Of its load balancer, and spec.externalIPs. */
  readonly externalAddresses: readonly string[];
  readonly ports: readonly ServicePort[];
  /** Null: no selector, hence no pods by label. */
  readonly selector: Labels | null;
  readonly ipFamilies: readonly ('IPv4' | 'IPv6')[];
  readonly publishNotReadyAddresses: boolean;
  readonly internalTrafficPolicy: 'Cluster' | 'Local';
  readonly trafficDistribution: string;
  readonly sessionAffinity: 'None' | 'ClientIP';
}

export type MeshObject =
  | Namespace
  | Node
  | ServiceAccount
  | Pod
  | Service
  | EndpointSlice
  | ServiceEntry
  | WorkloadEntry
  | DestinationRule
  | Sidecar
  | Telemetry
  | PeerAuthentication
  | AuthorizationPolicy;

/** `Pod/shop/cart-1`, `Node/n1`. */
export type ObjectKey = string;
