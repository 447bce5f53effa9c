import { tryParseAddress } from '../../mesh/common/address.js';
import type { EndpointSlice, Pod, Service, ServiceEntry, WorkloadEntry } from '../model/index.js';
import type { TranslateOptions } from './types.js';

/** hbone-and-wds.md 3.4, as all uids here. */
export function podUid(
  { namespace, name }: Pick<Pod, 'namespace' | 'name'>,
  options: TranslateOptions,
): string {
  return `${options.clusterId}//Pod/${namespace}/${name}`;
}

const UID_KINDS = {
  WorkloadEntry: 'networking.istio.io/WorkloadEntry',
  ServiceEntry: 'networking.istio.io/ServiceEntry',
  EndpointSlice: 'discovery.k8s.io/EndpointSlice',
} as const;

/** Of a workload that the object is or lists; `part` tells those of one object apart. */
export function endpointUid(
  {
    kind,
    namespace,
    name,
  }: Pick<WorkloadEntry | ServiceEntry | EndpointSlice, 'kind' | 'namespace' | 'name'>,
  part: string,
  options: TranslateOptions,
): string {
  const uid = `${options.clusterId}/${UID_KINDS[kind]}/${namespace}/${name}`;
  return part === '' ? uid : `${uid}/${part}`;
}

export function gatewayUid(network: string, address: string, port: number): string {
  return `NetworkGateway/${network}/${address}/${port}`;
}

export function serviceHostname(
  service: Pick<Service, 'namespace' | 'name'>,
  options: TranslateOptions,
): string {
  return `${service.name}.${service.namespace}.svc.${options.clusterDomain}`;
}

export function serviceResourceName(
  service: Pick<Service, 'namespace' | 'name'>,
  options: TranslateOptions,
): string {
  return `${service.namespace}/${serviceHostname(service, options)}`;
}

export function entryResourceName(entry: Pick<ServiceEntry, 'namespace'>, host: string): string {
  return `${entry.namespace}/${host}`;
}

export function addressAlias(network: string, address: string): string {
  return `${network}/${address}`;
}

/** The model's addresses are canonical, so they always parse. */
export function addressBytes(address: string): Uint8Array {
  const bytes = tryParseAddress(address);
  if (bytes === null) throw new TypeError(`not an IP address: ${address}`);
  return bytes;
}
