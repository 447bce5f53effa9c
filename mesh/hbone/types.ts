import type { SocketAddress } from '../common/address.js';
import type { Slab } from '../http2/types.js';
import type { TlsOptions } from '../io/types.js';

/** HBONE (reference sheet hbone-and-wds.md, section 1): TCP streams as HTTP/2 CONNECT over mTLS 1.3. */

/** What a CONNECT carries besides its authority. Fields are absent where the header is. */
export interface ConnectMetadata {
  /** Peer's workload labels. */
  readonly baggage?: Baggage;
  /** `for` of the `forwarded` header: the caller's own address. */
  readonly forwardedFor?: SocketAddress;
  /** `host` of the `forwarded` header: the service hostname that was addressed. */
  readonly forwardedHost?: string;
  /** `x-forwarded-network`: the caller's network, where the tunnel came through a gateway. Its address then means nothing here. */
  readonly forwardedNetwork?: string;
  /** 55 characters, W3C trace context version 00; checked. */
  readonly traceparent?: string;
}

/** Keys of the `baggage` header, in the order of the sheet (1.3). Empty values are absent. */
export interface Baggage {
  readonly clusterName?: string;
  readonly namespace?: string;
  readonly workloadType?: 'deployment' | 'cronjob' | 'pod' | 'job';
  readonly workloadName?: string;
  readonly serviceName?: string;
  readonly serviceVersion?: string;
  readonly region?: string;
  readonly zone?: string;
}

/** Everything that decides which pooled connection a tunnel may share (design.md 3: two pods of one account never share one). */
export interface NextHop {
  /** The source workload's uid and identity. */
  readonly sourceUid: string;
  readonly sourceIdentity: string;
  /** Ordered: the server must show one of these SPIFFE identities, exactly. Never empty. */
  readonly expectedIdentities: readonly string[];
  /** ip:15008 of the peer. */
  readonly address: SocketAddress;
  /** Network namespace of the source pod, and the source address to dial from. */
  readonly netnsFd: number;
  readonly fromAddress?: string;
  /** The peer is on another network: `address` is not dialled, its gateway carries the connection. */
  readonly through?: GatewayHop;
}

/** A tunnel to a network's gateway that carries a connection to one of its workloads (double HBONE, sheet 1.7). */
export interface GatewayHop {
  /** The gateway itself. */
  readonly hop: NextHop;
  /** `hostname:port` of the service. */
  readonly authority: string;
}

/** One byte stream through a tunnel, either side. Flow-controlled; bytes are built in place (see mesh/http2 `Stream`). */
export interface Tunnel {
  readonly isOpen: boolean;
  /** Why the connection that carried it was cut off, where the peer's certificate was revoked; else null. */
  readonly revocation: string | null;
  sendCapacity(): number;
  beginData(max: number): Slab;
  commitData(bytes: number, endStream: boolean): void;
  endStream(): void;
  /** The application was reset, or we give up: RST_STREAM(CANCEL) where it went wrong on this side. */
  reset(): void;
  consumed(bytes: number): void;
}

export interface TunnelHandler {
  onData(bytes: Buffer, start: number, end: number): void;
  /** The only clean end of the peer's direction. */
  onEnd(): void;
  /** Reset stream, lost connection, peer gone: becomes an RST at the application. */
  onReset(cause: string): void;
  onWritable(): void;
}

export interface ClientTunnelHandler extends TunnelHandler {
  /** 200 came. Bytes may flow (they may be sent before, too: they then ride behind the CONNECT). */
  onEstablished(response: ConnectMetadata): void;
  /**
   * No tunnel. Nothing of the application's bytes was delivered (of a connection lost before the answer: as far as anyone knows). Never a clean end.
   * `undelivered`: what had been sent, where the peer did surely not take it, for a tunnel elsewhere; null where nobody knows.
   */
  onFailed(failure: TunnelFailure, undelivered: Undelivered | null): void;
}

/** What an application sent into a tunnel that did not come to be. */
export interface Undelivered {
  readonly bytes: Buffer | null;
  /** END_STREAM, too. */
  readonly ended: boolean;
}

/** Of `HboneClient.open`. */
export interface OpenOptions {
  /** From `open` to the peer's answer. */
  readonly timeoutMs?: number;
  /** Of a tunnel that failed: goes first. */
  readonly undelivered?: Undelivered | null;
}

/** Why a tunnel could not be opened; `flag` is the response flag of the metrics (sheet 7.1). */
export interface TunnelFailure {
  readonly flag:
    | 'CONNECT'
    | 'TLS_FAILURE'
    | 'H2_HANDSHAKE_FAILURE'
    | 'NETWORK_POLICY'
    | 'IDENTITY_ERROR'
    | 'CERT_REVOKED'
    | 'DENY';
  /** HTTP status of a refused CONNECT. */
  readonly status?: number;
  /** The reason lies on this side: it says nothing of the peer, and is the same whatever the peer. */
  readonly isOurs?: true;
  readonly message: string;
}

/** A CONNECT as the server got it, already validated in form (method, authority, headers). */
export interface TunnelRequest {
  /** As sent: `ip:port` or `hostname:port`. */
  readonly authority: string;
  /** Where `authority` is ip:port. */
  readonly address: SocketAddress | null;
  /** Where it is hostname:port. */
  readonly host: { readonly hostname: string; readonly port: number } | null;
  readonly metadata: ConnectMetadata;
  /** The client certificate's SPIFFE identity. */
  readonly peerIdentity: string;
  readonly peer: SocketAddress;
  /** The connection's own local address: the pod and 15008. */
  readonly local: SocketAddress;
  /** As `Tunnel.revocation`. */
  readonly revocation: string | null;
  /** 200 with our workload's baggage. Call once, after the application accepted the connection. */
  accept(baggage: Baggage): Tunnel;
  /** 400, 401 or 503 (sheet 1.4), HEADERS with END_STREAM. Nothing happens if the peer has gone already. */
  refuse(status: number): void;
}

/** TLS as a pool or server needs it for one local identity; null: none at hand (no certificate yet). */
export type TlsOf = (identity: string) => TlsOptions | null;

/** What the server makes of one accepted 15008 connection's requests. */
export interface TunnelAcceptor {
  /** Return the handler for bytes that come; it may accept or refuse later. */
  onTunnel(request: TunnelRequest): TunnelHandler;
  /**
   * The authority's IP is not the connection's own address: refused with 400 unless this says otherwise (hbone-and-wds.md 1.4: the workload has an
   * application tunnel, or is the waypoint of what is addressed).
   */
  acceptsAddress?(address: SocketAddress, local: SocketAddress): boolean;
}
