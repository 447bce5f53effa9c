import { istio } from '../../mesh/proto/index.js';
import type {
  EndpointFields,
  EndpointSlice,
  Model,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from '../model/index.js';
import { workloadDnsExtension } from './extensions.js';
import {
  type Memberships,
  membershipsOfEndpoint,
  membershipsOfSlice,
  membershipsOfWorkloadEntry,
} from './memberships.js';
import { addressAlias, addressBytes, endpointUid, gatewayUid } from './names.js';
import {
  gatewayOfService,
  networkGatewayOf,
  networkOfEndpoint,
  networkOfSliceEndpoint,
  podAt,
} from './network.js';
import { policyNamesOf } from './policies/policies.js';
import type { TranslateOptions } from './types.js';
import {
  canonicalNames,
  hasNativeTunnel,
  localityOfNode,
  type WorkloadResource,
  wireLocality,
  wireTrustDomain,
} from './workload.js';

const { TunnelProtocol, WorkloadStatus, WorkloadType } = istio.workload;

/** Workloads that are no pods: WorkloadEntries, endpoints of ServiceEntries and EndpointSlices, gateways of networks. */
export function translateWorkloadEntry(
  entry: WorkloadEntry,
  model: Model,
  options: TranslateOptions,
): readonly WorkloadResource[] {
  // A pod's address says what the pod is, and that the entry must not send in clear to it.
  const network = networkOfEndpoint(entry, model, options);
  if (podAt(entry.address, network, model, options) !== undefined) return [];
  const services = membershipsOfWorkloadEntry(entry, model, options);
  const uid = endpointUid(entry, '', options);
  const what = { uid, of: entry, endpoint: entry, healthy: entry.healthy, services };
  const { message, ...resource } = endpointWorkload(what, model, options);
  return [
    {
      ...resource,
      message: { ...message, authorizationPolicies: [...policyNamesOf(entry, model, options)] },
    },
  ];
}

/** Endpoints that the entry lists; of one that resolves and lists none, each of its hosts. */
export function translateEntryEndpoints(
  entry: ServiceEntry,
  model: Model,
  options: TranslateOptions,
): readonly WorkloadResource[] {
  const resolves = entry.resolution !== 'NONE' && entry.resolution !== 'STATIC';
  const uids = new Set<string>();
  const of = (endpoint: EndpointFields, services: Memberships): WorkloadResource[] => {
    const network = networkOfEndpoint(endpoint, model, options);
    if (Object.keys(services).length === 0 || podAt(endpoint.address, network, model, options) !== undefined)
      return [];
    const uid = freeUid(
      endpointUid(entry, endpoint.address || endpoint.hostname || endpoint.network, options),
      uids,
    );
    return [endpointWorkload({ uid, of: entry, endpoint, healthy: true, services }, model, options)];
  };
  if (entry.endpoints.length > 0)
    return entry.endpoints.flatMap((endpoint) => of(endpoint, membershipsOfEndpoint(entry, endpoint, model)));
  if (!resolves || entry.selector !== null) return [];
  return entry.hosts
    .filter((host) => !host.startsWith('*.'))
    .flatMap((hostname) => {
      const endpoint = { ...HOST_ENDPOINT, hostname };
      return of(endpoint, membershipsOfEndpoint(entry, endpoint, model, hostname));
    });
}

const HOST_ENDPOINT: EndpointFields = {
  address: '',
  hostname: '',
  ports: {},
  labels: {},
  network: '',
  locality: { region: '', zone: '', subzone: '' },
  weight: 0,
  serviceAccount: '',
};

/** Endpoints of a service without a selector; those with a pod's address belong to the pod (`membershipsOfPod`). */
export function translateSlice(
  slice: EndpointSlice,
  model: Model,
  options: TranslateOptions,
): readonly WorkloadResource[] {
  const services = membershipsOfSlice(slice, model, options);
  if (Object.keys(services).length === 0) return [];
  return slice.endpoints.flatMap((endpoint) => {
    const network = networkOfSliceEndpoint(endpoint, model, options);
    const locality = localityOfNode(model.node(endpoint.nodeName));
    const place = { network, locality: { ...locality, zone: locality.zone || endpoint.zone } };
    return endpoint.addresses
      .filter((address) => podAt(address, network, model, options) === undefined)
      .map((address) => {
        const what = {
          uid: endpointUid(slice, address, options),
          of: slice,
          endpoint: { ...HOST_ENDPOINT, ...place, address },
          healthy: endpoint.ready,
          services,
          node: endpoint.nodeName,
          extensions: workloadDnsExtension({ hostname: endpoint.hostname, subdomain: slice.serviceName }),
        };
        return endpointWorkload(what, model, options);
      });
  });
}

/** What clients in other networks must know of a network's gateway to trust it: its addresses and its identity. */
export function translateGateway(
  service: Service,
  model: Model,
  options: TranslateOptions,
): readonly WorkloadResource[] {
  const gateway = gatewayOfService(service, model);
  if (gateway === null) return [];
  const { network, port, serviceAccount } = gateway;
  return gateway.addresses.map((address) => {
    const uid = gatewayUid(network, address, port);
    return {
      name: uid,
      aliases: [addressAlias(network, address)],
      follows: [],
      message: {
        uid,
        name: service.name,
        namespace: service.namespace,
        addresses: [addressBytes(address)],
        network,
        tunnelProtocol: TunnelProtocol.HBONE,
        trustDomain: wireTrustDomain(options),
        serviceAccount,
        workloadName: service.name,
        workloadType: WorkloadType.POD,
        ...canonicalNames(service.labels, service.name),
        clusterId: options.clusterId,
      },
    };
  });
}

interface EndpointInput {
  readonly uid: string;
  readonly of: { readonly namespace: string; readonly name: string };
  readonly endpoint: EndpointFields;
  readonly healthy: boolean;
  readonly services: Memberships;
  readonly node?: string;
  readonly extensions?: readonly istio.workload.Extension.$Properties[];
}

function endpointWorkload(input: EndpointInput, model: Model, options: TranslateOptions): WorkloadResource {
  const { uid, of, endpoint, services } = input;
  const { address, hostname } = endpoint;
  const network = networkOfEndpoint(endpoint, model, options);
  const nativeTunnel = hasNativeTunnel(endpoint.labels);
  // Without an address of its own it is reached through its network's gateway only, and that carries HBONE.
  const isHbone = nativeTunnel || (address === '' && hostname === '');
  return {
    name: uid,
    aliases: address === '' ? [] : [addressAlias(network, address)],
    follows: Object.keys(services),
    message: {
      uid,
      name: of.name,
      namespace: of.namespace,
      addresses: address === '' ? [] : [addressBytes(address)],
      hostname,
      network,
      networkGateway: networkGatewayOf(uid, network, model),
      tunnelProtocol: isHbone ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
      nativeTunnel,
      trustDomain: wireTrustDomain(options),
      serviceAccount: endpoint.serviceAccount,
      node: input.node ?? '',
      workloadName: of.name,
      workloadType: WorkloadType.POD,
      ...canonicalNames(endpoint.labels, of.name),
      status: input.healthy ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
      clusterId: options.clusterId,
      services,
      locality: wireLocality(endpoint.locality),
      extensions: [...(input.extensions ?? [])],
      ...(endpoint.weight === 0 ? {} : { capacity: { value: endpoint.weight } }),
    },
  };
}

function freeUid(wanted: string, used: Set<string>): string {
  let uid = wanted;
  for (let i = 2; used.has(uid); i++) uid = `${wanted}/${i}`;
  used.add(uid);
  return uid;
}
