import { formatSocketAddress } from '../../mesh/common/address.js';
import {
  type CopyFailure,
  type TunnelAcceptor,
  TunnelCopy,
  type TunnelHandler,
  type TunnelRequest,
} from '../../mesh/hbone/index.js';
import type { Connection, IoErrorCode } from '../../mesh/io/index.js';
import { serviceKeyOf, type Workload } from '../../mesh/store/index.js';
import type { ConnectionInfo, ConnectionRecord } from '../../mesh/telemetry/index.js';
import type { Endpoint, HboneRoute } from '../routing/index.js';
import type { TrackedConnection } from './connection-table.js';
import { connectTimeoutMs, isOurs, noHandler, party, type TunnelContext } from './context.js';
import { factsOf, refused } from './inbound.js';
import type { ConnectionSummary, WorkerPod } from './messages.js';
import { type Admission, denialOf, failureOf } from './policy-guard.js';

/**
 * The server of an east-west gateway (double HBONE, hbone-and-wds.md 1.7): a tunnel that asks for a service of this network by its hostname is
 * carried to the HBONE port of one of its endpoints, or of its waypoint. What is inside is TLS between the client and that server.
 */
export class EastWestAcceptor implements TunnelAcceptor {
  readonly #pod: WorkerPod;
  readonly #context: TunnelContext;
  #stopped = false;

  constructor(pod: WorkerPod, context: TunnelContext) {
    this.#pod = pod;
    this.#context = context;
  }

  stop(): void {
    this.#stopped = true;
  }

  onTunnel(request: TunnelRequest): TunnelHandler {
    const own = this.#stopped ? undefined : this.#context.storeView.ownOf(this.#pod);
    if (own === undefined) return refused(request, 503);
    const { guard, telemetry } = this.#context;
    const route = this.#routeOf(request, own);
    // What its policies see: the port that was asked for.
    const port = request.host?.port ?? request.address!.port;
    const facts = factsOf(request.peerIdentity, request.peer, { ...request.local, port });
    const verdict = guard.judge(own, facts);
    const info: ConnectionInfo = {
      reporter: 'destination',
      source: party(null, request.peerIdentity, request.metadata.baggage ?? null),
      destination: party(own, this.#context.texts.identityOf(own)),
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
    const admission = guard.admission(this.#pod, own, facts);
    return EastWestTunnel.dial({ context: this.#context, admission, request, info, route });
  }

  /** Where to; or why not. Never on to another network, and never to what does not speak HBONE. */
  #routeOf(request: TunnelRequest, own: Workload): HboneRoute | string {
    const { store, router } = this.#context;
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

interface Parts {
  readonly context: TunnelContext;
  readonly admission: Admission;
  readonly request: TunnelRequest;
  readonly info: ConnectionInfo;
  readonly route: HboneRoute;
}

/** TLS records between a tunnel and an HBONE server of this network. */
class EastWestTunnel extends TunnelCopy implements TrackedConnection {
  readonly podUid: string;
  readonly admission: Admission;
  readonly #parts: Parts;
  readonly #openedAtMs: number;
  readonly #endpoint: Endpoint | null;
  #record: ConnectionRecord | null = null;
  #early = 0;

  static dial(parts: Parts): EastWestTunnel {
    const { context, admission, route } = parts;
    const options = { to: route.nextHop, netnsFd: admission.pod.netnsFd, connectTimeoutMs };
    return new EastWestTunnel(context.reactor.connect(options, noHandler), parts);
  }

  constructor(server: Connection, parts: Parts) {
    super(server);
    this.podUid = parts.admission.pod.uid;
    this.admission = parts.admission;
    this.#parts = parts;
    this.#openedAtMs = parts.context.reactor.nowMs;
    this.#endpoint = parts.route.endpoint;
    server.handler = this;
    parts.context.connections.add(this);
    if (this.#endpoint !== null) parts.context.router.joined(this.#endpoint);
  }

  override onConnected(): void {
    const { context, request, info } = this.#parts;
    if (this.#endpoint !== null) context.router.connected(this.#endpoint);
    this.#record = context.telemetry.opened(info);
    this.#record.addReceived(this.#early);
    this.start(request.accept(context.texts.baggageOf(this.admission.own)));
  }

  /** What the endpoint did: how the tunnel ended, and why it was reset, is its sender's doing and says nothing of an endpoint. */
  override onClosed(server: Connection, error: Error & { readonly code: IoErrorCode }): void {
    const { router } = this.#parts.context;
    if (this.#record === null && this.#endpoint !== null && !isOurs(error.code))
      router.failed(this.#endpoint);
    super.onClosed(server, error);
  }

  get movedBytes(): number {
    return this.#record === null ? -1 : this.#record.sentBytes + this.#record.receivedBytes;
  }

  summary(): ConnectionSummary {
    const { context, request, route } = this.#parts;
    const { own } = this.admission;
    return {
      direction: 'inbound',
      source: `${formatSocketAddress(request.peer)} ${request.peerIdentity}`,
      destination: request.authority,
      pod: `${own.namespace}/${own.name}`,
      via: `east-west ${formatSocketAddress(route.nextHop)}`,
      ageMs: context.reactor.nowMs - this.#openedAtMs,
      bytesIn: this.#record?.receivedBytes ?? this.#early,
      bytesOut: this.#record?.sentBytes ?? 0,
    };
  }

  protected countFromApp(bytes: number): void {
    this.#record?.addSent(bytes);
  }

  protected countToApp(bytes: number): void {
    if (this.#record === null) this.#early += bytes;
    else this.#record.addReceived(bytes);
  }

  protected ended(failure: CopyFailure): void {
    const { context, request, info } = this.#parts;
    context.connections.remove(this);
    if (this.#endpoint !== null) context.router.left(this.#endpoint);
    if (this.#record !== null) {
      this.#record.closed(
        failure === null ? null : failureOf(this.admission, failure, request),
        this.endReason,
      );
      return;
    }
    request.refuse(this.admission.denied === null ? 503 : 401);
    context.telemetry.refused(
      info,
      failureOf(this.admission, failure ?? 'ended before it was open', request),
    );
  }
}
