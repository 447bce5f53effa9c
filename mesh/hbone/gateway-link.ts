import type { Connection, ConnectionHandler, Reactor, TlsOptions } from '../io/index.js';
import { TunnelCopy } from './tunnel-copy.js';
import type {
  ClientTunnelHandler,
  ConnectMetadata,
  NextHop,
  OpenOptions,
  Tunnel,
  TunnelFailure,
} from './types.js';

export interface GatewayLinkDeps {
  readonly reactor: Reactor;
  /** `HboneClient.open`. */
  readonly openTunnel: (
    hop: NextHop,
    authority: string,
    metadata: ConnectMetadata,
    handler: ClientTunnelHandler,
    options: OpenOptions,
  ) => Tunnel;
}

/** The connection's own handler hears why there is no tunnel before it hears of the end. */
export interface GatewayLinkHandler extends ConnectionHandler {
  onGatewayFailed(failure: TunnelFailure): void;
}

/**
 * A TLS client connection to `hop` inside a tunnel to its network's gateway, which only sees TLS records (double HBONE, sheet 1.7). Null: no
 * descriptors left. `hop.through` must be there.
 */
export function dialThroughGateway(
  hop: NextHop,
  tls: TlsOptions,
  handler: GatewayLinkHandler,
  deps: GatewayLinkDeps,
): Connection | null {
  const pair = deps.reactor.pair(tls, hop.address, handler);
  if (pair === null) return null;
  new GatewayLink(pair.wire, handler).open(hop, tls, deps);
  return pair.secure;
}

class GatewayLink extends TunnelCopy implements ClientTunnelHandler {
  readonly #handler: GatewayLinkHandler;

  constructor(wire: Connection, handler: GatewayLinkHandler) {
    super(wire);
    this.#handler = handler;
    wire.handler = this;
  }

  open({ through }: NextHop, { handshakeTimeoutMs }: TlsOptions, { openTunnel }: GatewayLinkDeps): void {
    // Before the handshake inside is given up: so it is known that the gateway is to blame.
    const options = { timeoutMs: handshakeTimeoutMs / 2 };
    const tunnel = openTunnel(through!.hop, through!.authority, {}, this, options);
    if (tunnel.isOpen && !this.isOver) this.start(tunnel);
  }

  onEstablished(): void {}

  onFailed(failure: TunnelFailure): void {
    this.#handler.onGatewayFailed(failure);
    this.fail(failure.message);
  }

  protected countFromApp(): void {}
  protected countToApp(): void {}
  protected ended(): void {}
}
