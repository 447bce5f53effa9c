import { formatSocketAddress, type SocketAddress } from '../../mesh/common/address.js';
import type { ClientTunnelHandler, ConnectMetadata, NextHop, TunnelFailure } from '../../mesh/hbone/index.js';
import type { Connection } from '../../mesh/io/index.js';
import type { Workload } from '../../mesh/store/index.js';
import type { ConnectionInfo, ConnectionRecord } from '../../mesh/telemetry/index.js';
import type { HboneRoute } from '../routing/index.js';
import { baggageOf, identityTextOf } from '../routing/index.js';
import type { TrackedConnection } from './connection-table.js';
import { party, type TunnelContext } from './context.js';
import type { ConnectionSummary, WorkerPod } from './messages.js';
import { type CopyFailure, TunnelCopy } from './tunnel-copy.js';

/** A captured connection and whose it is. */
export interface OutboundStartPoint {
  readonly app: Connection;
  readonly pod: WorkerPod;
  readonly source: Workload;
  readonly context: TunnelContext;
}

/** A pod's connection that goes through an HBONE tunnel. */
export class OutboundTunnel extends TunnelCopy implements ClientTunnelHandler, TrackedConnection {
  readonly podUid: string;
  readonly #context: TunnelContext;
  readonly #source: Workload;
  readonly #route: HboneRoute;
  readonly #openedAtMs: number;
  readonly #sourceAddress: SocketAddress;
  #record: ConnectionRecord | null = null;
  #failure: TunnelFailure | null = null;
  /** Both directions, before the record exists: bytes may ride behind the CONNECT. */
  #early = 0;

  constructor(start: OutboundStartPoint, route: HboneRoute) {
    super(start.app);
    this.podUid = start.pod.uid;
    this.#context = start.context;
    this.#source = start.source;
    this.#route = route;
    this.#openedAtMs = start.context.reactor.nowMs;
    this.#sourceAddress = start.app.remote;
    this.app.handler = this;
    start.context.connections.add(this);
  }

  /** Asks the pool for a tunnel to `authority`, the route's target; bytes flow as soon as it lets them. */
  open(nextHop: NextHop, authority: string): void {
    const { service } = this.#route;
    const metadata: ConnectMetadata = {
      baggage: baggageOf(this.#source),
      forwardedFor: this.#sourceAddress,
      ...(service === null ? {} : { forwardedHost: service.hostname }),
    };
    this.start(this.#context.hbone.open(nextHop, authority, metadata, this));
    this.readNow();
  }

  onEstablished(response: ConnectMetadata): void {
    this.#record = this.#context.telemetry.opened(this.#info(response));
    this.#record.addReceived(this.#early);
  }

  onFailed(failure: TunnelFailure): void {
    this.#failure = failure;
    this.fail(failure.message);
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
    this.#context.connections.remove(this);
    if (this.#record !== null)
      this.#record.closed(failure === null ? null : { flag: 'CONNECT', message: failure });
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
      source: party(this.#source, identityTextOf(this.#source)),
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
