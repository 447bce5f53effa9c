export {
  HboneClient,
  type HboneClientDeps,
  type HboneClientOptions,
  type HboneClientStats,
} from './client.js';
export {
  HboneServer,
  type HboneServerDeps,
  type HboneServerOptions,
  ILLEGAL_TARGET_PORTS,
} from './server.js';
export type { KeepaliveOptions } from './session-link.js';
export { TraceparentSource } from './traceparent.js';
export { type CopyFailure, TunnelCopy } from './tunnel-copy.js';
export type {
  Baggage,
  ClientTunnelHandler,
  ConnectMetadata,
  GatewayHop,
  NextHop,
  TlsOf,
  Tunnel,
  TunnelAcceptor,
  TunnelFailure,
  TunnelHandler,
  TunnelRequest,
  Undelivered,
} from './types.js';
