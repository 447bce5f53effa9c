import type { istio } from '../../mesh/proto/index.js';
import {
  type Model,
  NETWORK_LABEL,
  type Node,
  type Pod,
  type Service,
  type SliceEndpoint,
} from '../model/index.js';
import { addressBytes } from './names.js';
import type { TranslateOptions } from './types.js';
import { hashOf } from './vip-pool.js';

const HBONE_PORT = 15008;
const SERVICE_ACCOUNT = 'gateway.istio.io/service-account';

/** The network of VIPs, and of whatever does not say another: label of the root namespace, else the option. */
export function meshNetwork(model: Model, options: TranslateOptions): string {
  return model.namespace(model.options.rootNamespace)?.labels[NETWORK_LABEL] ?? options.network;
}

/** By label of the pod, its namespace (the root namespace's is the whole mesh's), its node. */
export function networkOfPod(pod: Pod, model: Model, options: TranslateOptions): string {
  return (
    pod.labels[NETWORK_LABEL] ??
    (pod.namespace === model.options.rootNamespace
      ? undefined
      : model.namespace(pod.namespace)?.labels[NETWORK_LABEL]) ??
    networkOfNode(model.node(pod.nodeName)) ??
    meshNetwork(model, options)
  );
}

function networkOfNode(node: Node | undefined): string | undefined {
  return node?.labels[NETWORK_LABEL];
}

/** The pod that has the address in the network; undefined too where the pod has ended. Whoever lists that address as an endpoint means the pod. */
export function podAt(
  address: string,
  network: string,
  model: Model,
  options: TranslateOptions,
): Pod | undefined {
  for (const pod of model.relations.podsAt(address))
    if (isLive(pod) && networkOfPod(pod, model, options) === network) return pod;
  return undefined;
}

/** Has an address and has not ended. */
export function isLive(pod: Pod): boolean {
  return pod.addresses.length > 0 && pod.phase !== 'Succeeded' && pod.phase !== 'Failed';
}

/** Of an endpoint that a WorkloadEntry is or a ServiceEntry lists. */
export function networkOfEndpoint(
  endpoint: { readonly network: string },
  model: Model,
  options: TranslateOptions,
): string {
  return endpoint.network || meshNetwork(model, options);
}

export function networkOfSliceEndpoint(
  endpoint: SliceEndpoint,
  model: Model,
  options: TranslateOptions,
): string {
  return networkOfNode(model.node(endpoint.nodeName)) ?? meshNetwork(model, options);
}

/** Where clients of other networks enter the network of a workload; null where it has no gateway. Workloads share several evenly. */
export function networkGatewayOf(
  uid: string,
  network: string,
  model: Model,
): istio.workload.GatewayAddress.$Properties | null {
  const gateways = model.relations.gatewaysOf(network).flatMap((service) =>
    service.externalAddresses.map((address) => ({
      address: { network, address: addressBytes(address) },
      hboneMtlsPort: HBONE_PORT,
    })),
  );
  return gateways[hashOf(uid) % gateways.length] ?? null;
}

/** A Service labelled as a network's gateway, as clients of other networks must know it. Null: it is none, or has no address outside. */
export interface NetworkGateway {
  readonly network: string;
  readonly addresses: readonly string[];
  readonly port: number;
  readonly serviceAccount: string;
}

export function gatewayOfService(service: Service, model: Model): NetworkGateway | null {
  const network = service.labels[NETWORK_LABEL];
  if (network === undefined || service.externalAddresses.length === 0) return null;
  const pods = model.relations.selectedBy(service).filter((one) => one.kind === 'Pod');
  const [first] = pods.sort((a, b) => (a.name < b.name ? -1 : 1));
  return {
    network,
    addresses: service.externalAddresses,
    port: HBONE_PORT,
    // Without a pod to ask: Istio names a gateway's account like its service.
    serviceAccount: service.annotations[SERVICE_ACCOUNT] ?? first?.serviceAccount ?? service.name,
  };
}
