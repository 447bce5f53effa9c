import type { SocketAddress } from '../common/address.js';
import { ErrorCode, type HeaderList, type Slab, type Stream, type StreamHandler } from '../http2/index.js';
import type { ConnectRequest } from './connect-headers.js';
import type { Baggage, ConnectMetadata, Tunnel, TunnelHandler, TunnelRequest } from './types.js';

/** The connection that carries a tunnel. */
export interface ServerTunnelCarrier {
  readonly peerIdentity: string;
  readonly peer: SocketAddress;
  readonly local: SocketAddress;
  readonly revocation: string | null;
  acceptHeaders(baggage: Baggage): HeaderList;
}

type State =
  | 'asked' // neither accepted nor refused
  | 'open'
  | 'over';

/** The server's end of one tunnel: first the request, then the tunnel itself, straight over its stream. */
export class ServerTunnel implements TunnelRequest, Tunnel, StreamHandler {
  readonly authority: string;
  readonly address: SocketAddress | null;
  readonly host: { readonly hostname: string; readonly port: number } | null;
  readonly metadata: ConnectMetadata;
  /** Set before the stream's first event. */
  handler!: TunnelHandler;
  private readonly stream: Stream;
  private readonly carrier: ServerTunnelCarrier;
  private state: State = 'asked';
  private localEnded = false;
  private remoteEnded = false;

  constructor(
    stream: Stream,
    request: ConnectRequest,
    metadata: ConnectMetadata,
    carrier: ServerTunnelCarrier,
  ) {
    this.stream = stream;
    this.carrier = carrier;
    this.authority = request.authority;
    this.address = request.address;
    this.host = request.host;
    this.metadata = metadata;
  }

  get peerIdentity(): string {
    return this.carrier.peerIdentity;
  }

  get peer(): SocketAddress {
    return this.carrier.peer;
  }

  get local(): SocketAddress {
    return this.carrier.local;
  }

  get revocation(): string | null {
    return this.carrier.revocation;
  }

  get isOpen(): boolean {
    return this.state !== 'over';
  }

  accept(baggage: Baggage): Tunnel {
    if (this.state !== 'asked') return this;
    this.state = 'open';
    this.stream.sendHeaders(this.carrier.acceptHeaders(baggage), false);
    return this;
  }

  refuse(status: number): void {
    if (this.state !== 'asked') return;
    this.state = 'over';
    refuseStream(this.stream, status);
  }

  sendCapacity(): number {
    return this.state === 'open' && !this.localEnded ? this.stream.sendCapacity() : 0;
  }

  beginData(max: number): Slab {
    return this.stream.beginData(max);
  }

  commitData(bytes: number, endStream: boolean): void {
    this.stream.commitData(bytes, endStream);
    if (endStream) this.localDone();
  }

  endStream(): void {
    if (this.state !== 'open' || this.localEnded) return;
    this.stream.endStream();
    this.localDone();
  }

  /** Before `accept`: the same as `refuse(503)`. */
  reset(): void {
    if (this.state === 'asked') {
      this.refuse(503);
      return;
    }
    this.state = 'over';
    this.stream.reset(ErrorCode.CANCEL);
  }

  consumed(bytes: number): void {
    this.stream.consumed(bytes);
  }

  /** Never called: mesh/http2 lets no trailers through on a tunnel. */
  onHeaders(): void {}

  onData(_stream: Stream, bytes: Buffer, start: number, end: number): void {
    if (this.state !== 'over') this.handler.onData(bytes, start, end);
  }

  onEnd(): void {
    if (this.state === 'over') return;
    this.remoteEnded = true;
    this.handler.onEnd();
    if (this.localEnded) this.state = 'over';
  }

  onReset(_stream: Stream, code: ErrorCode, sessionLost: boolean): void {
    this.lost(
      sessionLost ? 'the connection to the peer is lost' : `the peer reset the tunnel (HTTP/2 error ${code})`,
    );
  }

  onWritable(): void {
    if (this.state === 'open') this.handler.onWritable();
  }

  private lost(cause: string): void {
    if (this.state === 'over') return;
    this.state = 'over';
    this.handler.onReset(cause);
  }

  private localDone(): void {
    this.localEnded = true;
    if (this.remoteEnded) this.state = 'over';
  }
}

/** An answer without a body; RST_STREAM(NO_ERROR) then asks the peer to send nothing more (RFC 9113 8.1), and drops what it had sent. */
export function refuseStream(stream: Stream, status: number): void {
  stream.sendHeaders([[':status', String(status)]], true);
  stream.reset(ErrorCode.NO_ERROR);
}
