import type { SocketAddress } from '../../mesh/common/address.js';
import type { Service, Workload } from '../../mesh/store/index.js';
import type { Endpoint } from './endpoint-set.js';

/** Where one outbound connection goes. A plain object that logs itself. */
export type Route =
  /** Nobody we know: TCP to the original destination, unchanged. */
  | { readonly kind: 'passthrough'; readonly to: SocketAddress; readonly service: Service | null }
  | DirectRoute
  | HboneRoute
  /** The endpoint is known by a hostname whose addresses have been asked for: ask again when they have come. */
  | { readonly kind: 'unresolved'; readonly hostname: string; readonly service: Service }
  /** Known, but not to be reached: the connection is reset. */
  | { readonly kind: 'refused'; readonly reason: string; readonly service: Service | null };

/** A workload that does not speak HBONE: TCP, in clear. */
export interface DirectRoute {
  readonly kind: 'direct';
  readonly to: SocketAddress;
  readonly workload: Workload;
  readonly service: Service | null;
  /** As of an `HboneRoute`. */
  readonly endpoint: Endpoint | null;
}

/** CONNECT `target` through the HBONE server at `nextHop`. */
export interface HboneRoute {
  readonly kind: 'hbone';
  readonly via: 'workload' | 'waypoint';
  readonly nextHop: SocketAddress;
  /** What the CONNECT asks for: the workload's target port, or, of a waypoint, the original destination. */
  readonly target: SocketAddress;
  /** Ordered: the server must show one of them. */
  readonly expectedIdentities: readonly string[];
  /** Whose HBONE server it is. */
  readonly workload: Workload;
  /** The one that was addressed; of a waypoint's endpoint not the waypoint's. */
  readonly service: Service | null;
  /** Which of several it is, of the service or of the waypoint; null: there is no other. */
  readonly endpoint: Endpoint | null;
  /** The endpoint is on another network: `nextHop` is that network's gateway, which carries a connection to an HBONE server beyond (sheet 1.7). */
  readonly gateway: GatewayRoute | null;
}

/** A tunnel to a gateway, for a service of another network. */
export interface GatewayRoute {
  /** Of the gateway itself. */
  readonly expectedIdentities: readonly string[];
  /** `hostname:port` of the service, for the gateway and for the server beyond. */
  readonly authority: string;
  /** For `RouteRequest.tried`. */
  readonly key: string;
}

/** Addresses of hostnames, as workers ask for them: main answers by a message. */
export interface HostnameSource {
  /** The addresses; empty: it has none; null: not known yet, and asked for. */
  addressesOf(hostname: string): readonly string[] | null;
}

/** Our own listeners in every captured pod: never a target (hbone-and-wds.md 1.1, trampolining). */
export const illegalPorts: ReadonlySet<number> = new Set([15001, 15006, 15008, 15053]);
