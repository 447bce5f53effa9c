import { tryParseAddress } from '../../mesh/common/address.js';
import type { Service } from '../model/index.js';
import type { TranslateOptions } from './types.js';

/** hbone-and-wds.md 3.4. */
export function podUid(namespace: string, name: string, options: TranslateOptions): string {
  return `${options.clusterId}//Pod/${namespace}/${name}`;
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

export function addressAlias(address: string, options: TranslateOptions): string {
  return `${options.network}/${address}`;
}

/** The model's addresses are canonical, so they always parse. */
export function addressBytes(address: string): Uint8Array {
  const bytes = tryParseAddress(address);
  if (bytes === null) throw new TypeError(`not an IP address: ${address}`);
  return bytes;
}
