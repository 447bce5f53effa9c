import { formatSocketAddress } from '../../mesh/common/address.js';
import type { TunnelHandler, TunnelRequest } from '../../mesh/hbone/index.js';
import type { Connection, IoErrorCode } from '../../mesh/io/index.js';
import { serviceKeyOf, type Workload } from '../../mesh/store/index.js';
import type { ConnectionInfo } from '../../mesh/telemetry/index.js';
import type { Endpoint, HboneRoute } from '../routing/index.js';
import { AcceptedTunnel, type AcceptedTunnelParts, PodAcceptor } from './accepted-tunnel.js';
import { denialOf } from './connections/policy-guard.js';
import { connectTimeoutMs, isOurs, noHandler, party } from './context.js';
import { factsOf, refused } from './inbound.js';

/**
 * The server of an east-west gateway (double HBONE, hbone-and-wds.md 1.7): a tunnel that asks for a service of this network by its hostname is
 * carried to the HBONE port of one of its endpoints, or of its waypoint. What is inside is TLS between the client and that server.
 */
export class EastWestAcceptor extends PodAcceptor {
  onTunnel(request: TunnelRequest): TunnelHandler {
    const own = this.isStopped ? undefined : this.context.storeView.ownOf(this.pod);
    if (own === undefined) return refused(request, 503);
    const { guard, telemetry } = this.context;
    const route = this.#routeOf(request, own);
    // What its policies see: the port that was asked for.
    const port = request.host?.port ?? request.address!.port;
    const facts = factsOf(request.peerIdentity, request.peer, { ...request.local, port });
    const verdict = guard.judge(own, facts);
    const info: ConnectionInfo = {
      reporter: 'destination',
      source: party(null, request.peerIdentity, request.metadata.baggage ?? null),
      destination: party(own, this.context.texts.identityOf(own)),
      service: typeof route === 'string' ? null : route.service,
      mutualTls: true,
      sourceAddress: request.peer,
      destinationAddress: request.local,
      hboneAddress: typeof route === 'string' ? null : route.nextHop,
      verdict,
    };
    if (!verdict.allowed) {
      telemetry.refused(info, denialOf(verdict));
      return refused(request, 401);
    }
    if (typeof route === 'string') {
      telemetry.refused(info, { flag: 'CONNECT', message: `${request.authority}: ${route}` });
      return refused(request, 503);
    }
    const admission = guard.admission(this.pod, own, facts);
    return EastWestTunnel.dial({ context: this.context, admission, request, info }, route);
  }

  /** Where to; or why not. Never on to another network, and never to what does not speak HBONE. */
  #routeOf(request: TunnelRequest, own: Workload): HboneRoute | string {
    const { store, router } = this.context;
    if (request.host === null) return 'a gateway is asked for services by hostname only';
    const { hostname, port } = request.host;
    const service = store
      .servicesByHostname(hostname)
      .find(({ visibility, namespace }) => visibility === 'public' || namespace === own.namespace);
    if (service === undefined) return 'no such service';
    if (own.services.has(serviceKeyOf(service))) return 'a gateway leads to others, not to itself';
    const destination = { address: request.local.address, port };
    const client = request.peer.address;
    const route = router.routeToService({ source: own, destination, client, tried: [] }, service);
    if (route.kind === 'refused') return route.reason;
    if (route.kind !== 'hbone') return 'its endpoints do not speak HBONE';
    return route.gateway === null ? route : 'it is on another network';
  }
}

/** TLS records between a tunnel and an HBONE server of this network. */
class EastWestTunnel extends AcceptedTunnel {
  readonly #endpoint: Endpoint | null;

  static dial(parts: Omit<AcceptedTunnelParts, 'via'>, { nextHop, endpoint }: HboneRoute): EastWestTunnel {
    const { context, admission } = parts;
    const options = { to: nextHop, netnsFd: admission.pod.netnsFd, connectTimeoutMs };
    const server = context.reactor.connect(options, noHandler);
    const via = `east-west ${formatSocketAddress(nextHop)}`;
    return new EastWestTunnel(server, { ...parts, via }, endpoint);
  }

  constructor(server: Connection, parts: AcceptedTunnelParts, endpoint: Endpoint | null) {
    super(server, parts);
    this.#endpoint = endpoint;
    if (endpoint !== null) parts.context.router.joined(endpoint);
  }

  override onConnected(server: Connection): void {
    if (this.#endpoint !== null) this.context.router.connected(this.#endpoint);
    super.onConnected(server);
  }

  /** What the endpoint did: how the tunnel ended, and why it was reset, is its sender's doing and says nothing of an endpoint. */
  override onClosed(server: Connection, error: Error & { readonly code: IoErrorCode }): void {
    if (!this.isOpened && this.#endpoint !== null && !isOurs(error.code))
      this.context.router.failed(this.#endpoint);
    super.onClosed(server, error);
  }

  protected over(): void {
    if (this.#endpoint !== null) this.context.router.left(this.#endpoint);
  }
}
