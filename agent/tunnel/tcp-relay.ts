import { formatSocketAddress } from '../../mesh/common/address.js';
import type { CopyFailure } from '../../mesh/hbone/index.js';
import type { Connection, ConnectionHandler, ConnectOptions, IoErrorCode } from '../../mesh/io/index.js';
import type { ConnectionInfo, ConnectionRecord } from '../../mesh/telemetry/index.js';
import type { TrackedConnection } from './connections/connection-table.js';
import { type Admission, failureOf } from './connections/policy-guard.js';
import type { TunnelContext } from './context.js';
import type { ConnectionSummary } from './messages.js';
import { TcpCopy, type TcpCopyOwner } from './tcp-copy.js';

export interface TcpRelayParts {
  readonly context: TunnelContext;
  readonly podUid: string;
  /** `namespace/name` of the captured pod. */
  readonly pod: string;
  readonly downstream: Connection;
  readonly info: ConnectionInfo;
  /** For admin: what kind of connection this is. */
  readonly via: 'passthrough' | 'direct' | 'plaintext';
  /** Of an inbound one. */
  readonly admission?: Admission;
  /** Called once, when all is over. */
  readonly onOver?: () => void;
  /** 0 or absent: any. */
  readonly maxAgeMs?: number;
  readonly onConnected?: () => void;
  /** The dial failed. True: `downstream` goes on elsewhere, and this relay is over. */
  readonly onDialFailed?: (error: Error & { code: IoErrorCode }) => boolean;
}

/** A plain TCP connection carried over as plain TCP: a captured pod's to nobody we know, or one that came in without mTLS. */
export class TcpRelay implements ConnectionHandler, TcpCopyOwner, TrackedConnection {
  readonly podUid: string;
  readonly admission: Admission | null;
  readonly #parts: TcpRelayParts;
  readonly #openedAtMs: number;
  #upstream: Connection | null = null;
  #copy: TcpCopy | null = null;
  #record: ConnectionRecord | null = null;
  #endReason: string | null = null;

  /** Pauses `downstream`'s reading until the upstream is there. */
  constructor(parts: TcpRelayParts) {
    this.podUid = parts.podUid;
    this.admission = parts.admission ?? null;
    this.#parts = parts;
    this.#openedAtMs = parts.context.reactor.nowMs;
    parts.downstream.handler = this;
    parts.downstream.pauseReading();
    parts.context.connections.add(this);
  }

  dial(options: ConnectOptions): void {
    this.#upstream = this.#parts.context.reactor.connect(options, this);
  }

  /** The upstream is there: the copy takes both connections over. */
  onConnected(upstream: Connection): void {
    const { context, downstream, info, maxAgeMs = 0, onConnected } = this.#parts;
    onConnected?.();
    if (maxAgeMs > 0) context.connections.endAtAge(this, maxAgeMs);
    this.#record = context.telemetry.opened(info);
    this.#copy = new TcpCopy(downstream, upstream, context.reactor.receiveBuffer, this);
    this.#copy.start();
  }

  onReadable(connection: Connection): void {
    connection.pauseReading();
  }

  onDrained(): void {}

  /** Either side, before the copy began. */
  onClosed(connection: Connection, error: Error & { code: IoErrorCode }): void {
    const { context, downstream, onDialFailed, onOver } = this.#parts;
    if (connection !== downstream && onDialFailed?.(error) === true) {
      context.connections.remove(this);
      onOver?.();
      return;
    }
    const other = connection === downstream ? this.#upstream : downstream;
    other?.reset();
    this.copyEnded(error.message);
  }

  countFromDownstream(bytes: number): void {
    this.#record?.addReceived(bytes);
  }

  countFromUpstream(bytes: number): void {
    this.#record?.addSent(bytes);
  }

  copyEnded(failure: CopyFailure): void {
    const { context, info, onOver } = this.#parts;
    context.connections.remove(this);
    onOver?.();
    const cause = failure === null ? null : failureOf(this.admission, failure);
    if (this.#record !== null) this.#record.closed(cause, this.#endReason);
    else if (cause !== null) context.telemetry.refused(info, cause);
  }

  get movedBytes(): number {
    return this.#record === null ? -1 : this.#record.sentBytes + this.#record.receivedBytes;
  }

  end(reason: string): boolean {
    if (this.#copy?.end() !== true) return false;
    this.#endReason ??= reason;
    return true;
  }

  abort(cause: string): void {
    if (this.#copy !== null) {
      this.#copy.abort(cause);
      return;
    }
    this.#parts.downstream.reset();
    this.#upstream?.reset();
    this.copyEnded(cause);
  }

  summary(): ConnectionSummary {
    const { context, info, pod, via } = this.#parts;
    return {
      direction: info.reporter === 'source' ? 'outbound' : 'inbound',
      source: formatSocketAddress(info.sourceAddress),
      destination: formatSocketAddress(info.destinationAddress),
      pod,
      via,
      ageMs: context.reactor.nowMs - this.#openedAtMs,
      bytesIn: this.#record?.sentBytes ?? 0,
      bytesOut: this.#record?.receivedBytes ?? 0,
    };
  }
}
