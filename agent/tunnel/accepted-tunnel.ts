import { formatSocketAddress } from '../../mesh/common/address.js';
import {
  type CopyFailure,
  type TunnelAcceptor,
  TunnelCopy,
  type TunnelHandler,
  type TunnelRequest,
} from '../../mesh/hbone/index.js';
import type { Connection } from '../../mesh/io/index.js';
import type { ConnectionInfo, ConnectionRecord } from '../../mesh/telemetry/index.js';
import type { TrackedConnection } from './connections/connection-table.js';
import { type Admission, failureOf } from './connections/policy-guard.js';
import type { TunnelContext } from './context.js';
import type { ConnectionSummary, WorkerPod } from './messages.js';

/** Takes the tunnels that peers open to a pod's 15008. */
export abstract class PodAcceptor implements TunnelAcceptor {
  protected readonly pod: WorkerPod;
  protected readonly context: TunnelContext;
  protected isStopped = false;

  constructor(pod: WorkerPod, context: TunnelContext) {
    this.pod = pod;
    this.context = context;
  }

  /** From now on every tunnel is refused: one may come before its sender has read our GOAWAY. */
  stop(): void {
    this.isStopped = true;
  }

  abstract onTunnel(request: TunnelRequest): TunnelHandler;
}

export interface AcceptedTunnelParts {
  readonly context: TunnelContext;
  readonly admission: Admission;
  readonly request: TunnelRequest;
  readonly info: ConnectionInfo;
  /** For people. */
  readonly via: string;
}

/** A tunnel that a peer opened and policies let in, on its way to `server`, which is being dialled: counted, shown and logged until its end. */
export abstract class AcceptedTunnel extends TunnelCopy implements TrackedConnection {
  readonly podUid: string;
  readonly admission: Admission;
  protected readonly context: TunnelContext;
  readonly #parts: AcceptedTunnelParts;
  readonly #openedAtMs: number;
  #record: ConnectionRecord | null = null;
  /** Bytes that came before the server was connected. */
  #early = 0;

  constructor(server: Connection, parts: AcceptedTunnelParts) {
    super(server);
    this.podUid = parts.admission.pod.uid;
    this.admission = parts.admission;
    this.context = parts.context;
    this.#parts = parts;
    this.#openedAtMs = parts.context.reactor.nowMs;
    server.handler = this;
    parts.context.connections.add(this);
  }

  /** Once, however it ended. */
  protected abstract over(): void;

  /** The server was connected. */
  protected get isOpened(): boolean {
    return this.#record !== null;
  }

  override onConnected(_server: Connection): void {
    const { context, request, info } = this.#parts;
    this.#record = context.telemetry.opened(info);
    this.#record.addReceived(this.#early);
    this.start(request.accept(context.texts.baggageOf(this.admission.own)));
  }

  get movedBytes(): number {
    return this.#record === null ? -1 : this.#record.sentBytes + this.#record.receivedBytes;
  }

  summary(): ConnectionSummary {
    const { request, via } = this.#parts;
    const { own } = this.admission;
    return {
      direction: 'inbound',
      source: `${formatSocketAddress(request.peer)} ${request.peerIdentity}`,
      destination: request.authority,
      pod: `${own.namespace}/${own.name}`,
      via,
      ageMs: this.context.reactor.nowMs - this.#openedAtMs,
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
    this.over();
    if (this.#record !== null) {
      const why = failure === null ? null : failureOf(this.admission, failure, request);
      this.#record.closed(why, this.endReason);
      return;
    }
    request.refuse(this.admission.denied === null ? 503 : 401);
    const why = failureOf(this.admission, failure ?? 'ended before it was open', request);
    context.telemetry.refused(info, why);
  }
}
