import type { CopyFailure } from '../../mesh/hbone/index.js';
import { type Connection, type ConnectionHandler, EOF } from '../../mesh/io/index.js';

export interface TcpCopyOwner {
  countFromDownstream(bytes: number): void;
  countFromUpstream(bytes: number): void;
  /** Once, when both directions have ended or either side was reset. */
  copyEnded(failure: CopyFailure): void;
}

/**
 * Bytes between two plain TCP connections (passthrough, and destinations without HBONE), both ways, half-close kept per direction; a reset of
 * one side is a reset of the other. A side whose peer takes no more is not read.
 */
export class TcpCopy {
  readonly #owner: TcpCopyOwner;
  readonly #downstream: TcpSide;
  readonly #upstream: TcpSide;
  #over = false;

  /** `downstream` dialled us, we dialled `upstream`. `buffer`: the worker's shared receive buffer. */
  constructor(downstream: Connection, upstream: Connection, buffer: Buffer, owner: TcpCopyOwner) {
    this.#owner = owner;
    this.#downstream = new TcpSide(downstream, upstream, buffer, this);
    this.#upstream = new TcpSide(upstream, downstream, buffer, this);
    downstream.handler = this.#downstream;
    upstream.handler = this.#upstream;
  }

  start(): void {
    this.#downstream.connection.resumeReading();
    this.#upstream.connection.resumeReading();
  }

  abort(cause: string): void {
    this.finish(cause, null);
  }

  /** As `TrackedConnection.end`. */
  end(): boolean {
    const waiting = this.#downstream.connection.pendingBytes + this.#upstream.connection.pendingBytes;
    if (this.#over || waiting > 0) return false;
    this.#downstream.cut();
    this.#upstream.cut();
    return true;
  }

  count(side: TcpSide, bytes: number): void {
    if (side === this.#downstream) this.#owner.countFromDownstream(bytes);
    else this.#owner.countFromUpstream(bytes);
  }

  /** The other direction of `side`: whose writes come from it. */
  opposite(side: TcpSide): TcpSide {
    return side === this.#downstream ? this.#upstream : this.#downstream;
  }

  /** A side has ended or drained: over when both have, and all is sent. */
  endIfBothEnded(): void {
    if (this.#over || !this.#downstream.isDone || !this.#upstream.isDone) return;
    this.#over = true;
    this.#downstream.connection.close();
    this.#upstream.connection.close();
    this.#owner.copyEnded(null);
  }

  /** `gone`: the side that is closed already. */
  finish(failure: string, gone: TcpSide | null): void {
    if (this.#over) return;
    this.#over = true;
    if (gone !== this.#downstream) this.#downstream.connection.reset();
    if (gone !== this.#upstream) this.#upstream.connection.reset();
    this.#owner.copyEnded(failure);
  }
}

/** One direction: reads `connection`, writes `sink`. */
class TcpSide implements ConnectionHandler {
  readonly connection: Connection;
  readonly #sink: Connection;
  readonly #buffer: Buffer;
  readonly #copy: TcpCopy;
  ended = false;
  /** We have ended its direction: only its own end is awaited. */
  #isCut = false;

  constructor(connection: Connection, sink: Connection, buffer: Buffer, copy: TcpCopy) {
    this.connection = connection;
    this.#sink = sink;
    this.#buffer = buffer;
    this.#copy = copy;
  }

  /** Its peer has ended, and has all that it is to get. */
  get isDone(): boolean {
    return this.ended && this.connection.pendingBytes === 0;
  }

  cut(): void {
    if (this.ended || this.#isCut) return;
    this.#isCut = true;
    this.#sink.shutdownWrite();
    // For its FIN.
    this.connection.resumeReading();
  }

  onConnected(): void {}

  onReadable(connection: Connection): void {
    const bytes = connection.read(this.#buffer, 0, this.#buffer.length);
    if (bytes > 0) {
      if (this.#isCut) {
        this.#copy.finish('ended by us, and it went on sending', null);
        return;
      }
      this.#copy.count(this, bytes);
      if (this.#sink.write(this.#buffer, 0, bytes) > 0) connection.pauseReading();
    } else if (bytes === EOF && connection.isOpen) {
      this.ended = true;
      connection.pauseReading();
      this.#sink.shutdownWrite();
      this.#copy.endIfBothEnded();
    }
  }

  /** What this side's peer sent has left: read that peer again. */
  onDrained(): void {
    const source = this.#copy.opposite(this);
    if (!source.ended) source.connection.resumeReading();
    else this.#copy.endIfBothEnded();
  }

  onClosed(_connection: Connection, error: Error): void {
    this.#copy.finish(error.message, this);
  }
}
