import { messageOf } from '../common/errors.js';
import type { HeaderList, Stream, StreamHandler } from '../http2/index.js';
import type { Connection, ConnectOptions, TlsContextId, TlsOptions } from '../io/index.js';
import type { ClientTunnel, TunnelCarrier } from './client-tunnel.js';
import { dialThroughGateway, type GatewayLinkDeps, type GatewayLinkHandler } from './gateway-link.js';
import { type IoError, type KeepaliveOptions, SessionLink } from './session-link.js';
import type { NextHop, TunnelFailure } from './types.js';

export interface ClientConnectionOptions extends KeepaliveOptions {
  /** TCP connect; the handshake has its own deadline. */
  readonly connectTimeoutMs: number;
  /** Tunnels at once; the peer's SETTINGS may lower it. */
  readonly maxTunnels: number;
  /** Closed after this long without a tunnel. */
  readonly idleTimeoutMs: number;
}

export interface ClientConnectionDeps extends GatewayLinkDeps {
  /** Throws unless the leaf (DER) is for one of the expected identities. */
  readonly verifyServer: (leaf: Buffer | null, expected: readonly string[]) => string;
  readonly revocationOf?: (peer: Connection) => string | null;
  readonly pool: ConnectionPool;
}

/** What a connection asks and tells its pool. */
export interface ConnectionPool {
  /** Streams that this peer has allowed on other connections: until its SETTINGS are here, all that is known. */
  peerMaxStreams: number;
  /** The peer is who it should be; tunnels may begin. */
  connectionReady(connection: ClientConnection): void;
  /** It ended before that. */
  connectionFailed(connection: ClientConnection, failure: TunnelFailure): void;
  /** It takes no new tunnels from now on. */
  connectionRetired(connection: ClientConnection): void;
  /** It is gone. */
  connectionOver(connection: ClientConnection): void;
}

/** For a peer whose workload was removed, or that leaves a CONNECT unanswered. */
const DOUBT_TIMEOUT_MS = 2_000;

/** One mTLS connection of the pool, from dial to end. */
export class ClientConnection extends SessionLink implements TunnelCarrier, GatewayLinkHandler {
  readonly hop: NextHop;
  readonly tlsContext: TlsContextId;
  private readonly options: ClientConnectionOptions;
  private readonly deps: ClientConnectionDeps;
  private tunnels = 0;
  private idleSinceMs = 0;
  /** Left the pool: finishes its tunnels and goes. */
  private isRetired = false;
  private isVerified = false;
  private rejection: TunnelFailure | null = null;

  constructor(hop: NextHop, tls: TlsOptions, options: ClientConnectionOptions, deps: ClientConnectionDeps) {
    super(deps.reactor, options);
    this.hop = hop;
    this.tlsContext = tls.context;
    this.options = options;
    this.deps = deps;
    this.connection = hop.through === undefined ? this.dial(tls) : this.dialThrough(tls);
  }

  private dial(tls: TlsOptions): Connection {
    const { hop, options } = this;
    const to: ConnectOptions = {
      to: hop.address,
      netnsFd: hop.netnsFd,
      connectTimeoutMs: options.connectTimeoutMs,
      tls,
      ...(hop.fromAddress === undefined ? {} : { fromAddress: hop.fromAddress }),
    };
    return this.deps.reactor.connect(to, this);
  }

  private dialThrough(tls: TlsOptions): Connection | null {
    const connection = dialThroughGateway(this.hop, tls, this, this.deps);
    // Not from within the constructor: the pool does not know us yet.
    if (connection === null) {
      const message = 'no descriptors left for a connection through a gateway';
      this.rejection = { flag: 'CONNECT', message, isOurs: true };
      this.reactor.setTimer(0, () => this.dropNow(message));
    }
    return connection;
  }

  onGatewayFailed(failure: TunnelFailure): void {
    this.rejection ??= { ...failure, message: `through the gateway: ${failure.message}` };
  }

  get openTunnels(): number {
    return this.tunnels;
  }

  get hasRoom(): boolean {
    const { session } = this;
    if (session === null || this.isRetired || !this.isLinkOpen || !session.acceptsStreams) return false;
    // Before its SETTINGS a connection takes one tunnel at least: a peer that had allowed none would be dialled for ever.
    const peerMax = this.isReady
      ? session.peerMaxConcurrentStreams
      : Math.max(1, this.deps.pool.peerMaxStreams);
    return session.openStreams < Math.min(this.options.maxTunnels, peerMax);
  }

  /** Only when `hasRoom`. */
  begin(tunnel: ClientTunnel): void {
    this.tunnels++;
    tunnel.begin(this.session!, this);
  }

  /** Out of the pool for good; ends with its last tunnel. */
  retire(): void {
    if (this.isRetired) return;
    this.isRetired = true;
    this.deps.pool.connectionRetired(this);
    if (this.tunnels === 0) this.closeSoon('not needed any more');
  }

  /** Its peer is said to be gone: no new tunnels, and open ones last only if it shows a sign of life soon. */
  doubt(): void {
    if (this.session === null) {
      this.dropNow('the workload is gone');
      return;
    }
    this.retire();
    this.expectLife(DOUBT_TIMEOUT_MS, 'its workload is gone');
  }

  tunnelEnded(): void {
    this.tunnels--;
    if (this.tunnels > 0) return;
    this.idleSinceMs = this.reactor.nowMs;
    if (this.isRetired) this.closeSoon('not needed any more');
  }

  get revocation(): string | null {
    return this.rejection?.flag === 'CERT_REVOKED' ? this.rejection.message : null;
  }

  /** Its peer may only be slow: it stays in the pool while it shows signs of life. */
  unanswered(): void {
    this.expectLife(DOUBT_TIMEOUT_MS, 'a CONNECT was not answered');
  }

  failureOf(cause: string): TunnelFailure {
    if (this.rejection !== null) return this.rejection;
    const to = `${this.hop.address.address}:${this.hop.address.port}`;
    return { flag: this.isReady ? 'CONNECT' : 'H2_HANDSHAKE_FAILURE', message: `HBONE to ${to}: ${cause}` };
  }

  onConnected(connection: Connection): void {
    this.connection = connection;
    try {
      this.deps.verifyServer(connection.peerCertificate(), this.hop.expectedIdentities);
    } catch (error) {
      this.rejection = { flag: 'IDENTITY_ERROR', message: messageOf(error) };
      this.dropNow(messageOf(error));
      return;
    }
    const revocation = this.deps.revocationOf?.(connection) ?? null;
    if (revocation !== null) {
      this.rejection = { flag: 'CERT_REVOKED', message: revocation };
      this.dropNow(revocation);
      return;
    }
    this.isVerified = true;
    this.idleSinceMs = this.reactor.nowMs;
    this.startSession(connection, { role: 'client' });
    this.deps.pool.connectionReady(this);
  }

  closeIfRevoked(): boolean {
    const revocation = this.isVerified ? (this.deps.revocationOf?.(this.connection!) ?? null) : null;
    if (revocation === null) return false;
    this.rejection = { flag: 'CERT_REVOKED', message: revocation };
    this.closeNow(revocation);
    return true;
  }

  override onSessionReady(): void {
    super.onSessionReady();
    this.deps.pool.peerMaxStreams = this.session!.peerMaxConcurrentStreams;
  }

  onRequest(_stream: Stream, _headers: HeaderList): StreamHandler | null {
    return null;
  }

  onGoAway(): void {
    this.retire();
  }

  protected onTick(): void {
    const idleMs = this.reactor.nowMs - this.idleSinceMs;
    if (this.tunnels === 0 && idleMs >= this.options.idleTimeoutMs) this.retire();
  }

  protected onPeerDead(cause: string): void {
    this.dropNow(cause);
  }

  protected onLinkOver(cause: string, error: IoError | null): void {
    this.isRetired = true;
    const { pool } = this.deps;
    if (!this.isVerified) pool.connectionFailed(this, this.rejection ?? this.dialFailure(cause, error));
    pool.connectionOver(this);
  }

  private dialFailure(cause: string, error: IoError | null): TunnelFailure {
    const to = `${this.hop.address.address}:${this.hop.address.port}`;
    switch (error?.code) {
      case 'CONNECT_TIMEOUT':
        return {
          flag: 'NETWORK_POLICY',
          message: `no TCP connection to ${to} within ${this.options.connectTimeoutMs} ms: maybe a NetworkPolicy blocks HBONE port ${this.hop.address.port}`,
        };
      case 'HANDSHAKE_FAILED':
      case 'HANDSHAKE_TIMEOUT':
        return { flag: 'TLS_FAILURE', message: `TLS to ${to}: ${cause}` };
      case 'NO_RESOURCES':
      case 'HANDLER_FAILED':
        return { flag: 'CONNECT', message: `connect to ${to}: ${cause}`, isOurs: true };
      default:
        return { flag: 'CONNECT', message: `connect to ${to}: ${cause}` };
    }
  }
}
