import { formatSocketAddress, type SocketAddress } from '../../mesh/common/address.js';
import {
  type ClientTunnelHandler,
  type ConnectMetadata,
  type CopyFailure,
  type NextHop,
  type Tunnel,
  TunnelCopy,
  type TunnelFailure,
  type Undelivered,
} from '../../mesh/hbone/index.js';
import type { Connection } from '../../mesh/io/index.js';
import type { Workload } from '../../mesh/store/index.js';
import type { ConnectionInfo, ConnectionRecord } from '../../mesh/telemetry/index.js';
import type { DirectRoute, HboneRoute } from '../routing/index.js';
import type { TrackedConnection } from './connections/connection-table.js';
import { lossOf } from './connections/policy-guard.js';
import { party, type TunnelContext } from './context.js';
import type { ConnectionSummary, WorkerPod } from './messages.js';

/** A captured connection and whose it is. */
export interface OutboundStartPoint {
  readonly app: Connection;
  readonly pod: WorkerPod;
  readonly source: Workload;
  readonly context: TunnelContext;
}

/** Who may send a connection elsewhere when an attempt has failed. */
export interface Redial {
  /**
   * `undelivered`: what the application had sent, to be sent again; null: some of it may have arrived, and nothing can be done.
   * True: the application is somebody else's now.
   */
  attemptFailed(route: DirectRoute | HboneRoute, undelivered: Undelivered | null): boolean;
}

/** The layers below know better why an attempt takes too long: theirs is the first word. */
const deadlineSlackMs = 100;

/** A pod's connection that goes through an HBONE tunnel. */
export class OutboundTunnel extends TunnelCopy implements ClientTunnelHandler, TrackedConnection {
  readonly podUid: string;
  readonly #context: TunnelContext;
  readonly #source: Workload;
  readonly #route: HboneRoute;
  readonly #redial: Redial;
  readonly #openedAtMs: number;
  readonly #sourceAddress: SocketAddress;
  #record: ConnectionRecord | null = null;
  #failure: TunnelFailure | null = null;
  #tunnel: Tunnel | null = null;
  /** Both directions, before the record exists: bytes may ride behind the CONNECT. */
  #early = 0;

  constructor(start: OutboundStartPoint, route: HboneRoute, redial: Redial) {
    super(start.app);
    this.podUid = start.pod.uid;
    this.#context = start.context;
    this.#source = start.source;
    this.#route = route;
    this.#redial = redial;
    this.#openedAtMs = start.context.reactor.nowMs;
    this.#sourceAddress = start.app.remote;
    this.app.handler = this;
    start.context.connections.add(this);
    if (route.endpoint !== null) start.context.router.joined(route.endpoint);
  }

  /** Asks the pool for a tunnel to `authority`, the route's target; bytes flow as soon as it lets them. `undelivered` of an attempt before goes first. */
  open(nextHop: NextHop, authority: string, attemptMs: number, undelivered: Undelivered | null): void {
    const { texts, hbone } = this.#context;
    const { service, gateway } = this.#route;
    const metadata: ConnectMetadata = {
      baggage: texts.baggageOf(this.#source),
      forwardedFor: this.#sourceAddress,
      ...(service === null ? {} : { forwardedHost: service.hostname }),
      ...(gateway === null ? {} : { forwardedNetwork: this.#source.network }),
    };
    this.#early = undelivered?.bytes?.length ?? 0;
    const options = { timeoutMs: attemptMs + deadlineSlackMs, undelivered };
    const tunnel = hbone.open(nextHop, authority, metadata, this, options);
    // It may have failed at once, and the connection be on its way elsewhere.
    if (!tunnel.isOpen || this.isOver) return;
    this.#tunnel = tunnel;
    this.start(tunnel, undelivered?.ended);
    this.readNow();
  }

  onEstablished(response: ConnectMetadata): void {
    const { telemetry, router, connections } = this.#context;
    const { endpoint, service } = this.#route;
    if (endpoint !== null) router.connected(endpoint);
    const maxAgeMs = service?.trafficPolicy?.maxConnectionAgeMs ?? 0;
    if (maxAgeMs > 0) connections.endAtAge(this, maxAgeMs);
    this.#record = telemetry.opened(this.#info(response));
    this.#record.addReceived(this.#early);
  }

  onFailed(failure: TunnelFailure, undelivered: Undelivered | null): void {
    this.#failure = failure;
    const isEndpoints = failure.isOurs !== true && (failure.status === undefined || failure.status >= 500);
    if (isEndpoints && this.#goesElsewhere(undelivered)) return;
    this.fail(failure.message);
  }

  #goesElsewhere(undelivered: Undelivered | null): boolean {
    const isUntouched = this.#early === 0 && !this.hasAppEnded;
    const carried = undelivered ?? (isUntouched ? { bytes: null, ended: false } : null);
    if (!this.#redial.attemptFailed(this.#route, carried)) return false;
    this.handBack();
    this.#leave();
    return true;
  }

  #leave(): void {
    const { connections, router } = this.#context;
    connections.remove(this);
    if (this.#route.endpoint !== null) router.left(this.#route.endpoint);
  }

  get movedBytes(): number {
    return this.#record === null ? -1 : this.#record.sentBytes + this.#record.receivedBytes;
  }

  summary(): ConnectionSummary {
    return {
      direction: 'outbound',
      source: formatSocketAddress(this.#sourceAddress),
      destination: formatSocketAddress(this.#route.target),
      pod: `${this.#source.namespace}/${this.#source.name}`,
      via: `hbone ${formatSocketAddress(this.#route.nextHop)}`,
      ageMs: this.#context.reactor.nowMs - this.#openedAtMs,
      bytesIn: this.#record?.sentBytes ?? 0,
      bytesOut: this.#record?.receivedBytes ?? this.#early,
    };
  }

  protected countFromApp(bytes: number): void {
    if (this.#record === null) this.#early += bytes;
    else this.#record.addReceived(bytes);
  }

  protected countToApp(bytes: number): void {
    this.#record?.addSent(bytes);
  }

  protected ended(failure: CopyFailure): void {
    this.#leave();
    if (this.#record !== null)
      this.#record.closed(failure === null ? null : lossOf(this.#tunnel, failure), this.endReason);
    else
      this.#context.telemetry.refused(this.#info({}), {
        flag: this.#failure?.flag ?? 'CONNECT',
        message: failure ?? 'ended before the tunnel was open',
      });
  }

  #info(response: ConnectMetadata): ConnectionInfo {
    const { workload, service, nextHop, target, expectedIdentities, via } = this.#route;
    return {
      reporter: 'source',
      source: party(this.#source, this.#context.texts.identityOf(this.#source)),
      destination: party(
        via === 'waypoint' && response.baggage ? null : workload,
        expectedIdentities[0] ?? null,
        response.baggage ?? null,
      ),
      service,
      mutualTls: true,
      sourceAddress: this.#sourceAddress,
      destinationAddress: nextHop,
      hboneAddress: target,
    };
  }
}
