import { isLoopback, type SocketAddress } from '../../mesh/common/address.js';
import type { Service, Workload } from '../../mesh/store/index.js';
import type { Endpoint, EndpointSet } from './endpoint-set.js';
import type { HboneRoute, Route } from './types.js';

const hbonePort = 15008;

/** `requested` is another address of the endpoint's workload. */
export function isOther({ workload, to }: Endpoint, requested: string): boolean {
  return workload.addresses.length > 1 && requested !== to!.address && workload.addresses.includes(requested);
}

/** Loopback, and 0.0.0.0 and ::, by which the kernel means the same. */
export function isOwnMachine(address: string): boolean {
  return isLoopback(address) || address === '0.0.0.0' || address === '::';
}

export function hboneAt({ address }: SocketAddress): SocketAddress {
  return { address, port: hbonePort };
}

export function hboneTo(endpoint: Endpoint, to: SocketAddress): HboneRoute {
  const { workload, identities, set } = endpoint;
  return hboneVia('workload', hboneAt(to), to, identities, workload, set.service, endpoint);
}

export function hboneVia(
  via: HboneRoute['via'],
  nextHop: SocketAddress,
  target: SocketAddress,
  expectedIdentities: readonly string[],
  workload: Workload,
  service: Service | null,
  endpoint: Endpoint | null,
): HboneRoute {
  return {
    kind: 'hbone',
    via,
    nextHop,
    target,
    expectedIdentities,
    workload,
    service,
    endpoint,
    gateway: null,
  };
}

export function gatewayKeyOf(address: string): string {
  return `gateway ${address}`;
}

/** On another network, whose only way in for it was tried. */
export function isBehindOneOf(tried: readonly string[], { isRemote, workload }: Endpoint): boolean {
  const destination = isRemote ? workload.networkGateway?.destination : undefined;
  return destination?.kind === 'address' && tried.includes(gatewayKeyOf(destination.address));
}

/** Those known by hostname have been asked for, in vain. */
export function namesOf({ endpoints }: EndpointSet): string {
  const names = endpoints.filter(({ to }) => to === null).map(({ workload }) => workload.hostname);
  return names.length === 0 ? '' : `: no address is known of ${names.slice(0, 3).join(', ')}`;
}

export function unreadable(workload: Workload, service: Service | null): Route {
  return refused(service, `workload ${workload.uid} could not be read: ${workload.defect}`);
}

export function refused(service: Service | null, reason: string): Route {
  return { kind: 'refused', reason, service };
}
