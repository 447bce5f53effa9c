import type { SocketAddress } from '../common/address.js';
import { messageOf } from '../common/errors.js';
import { Memo } from '../common/memo.js';
import type { HeaderList, Stream, StreamHandler } from '../http2/index.js';
import type { AcceptHandler, Connection, ConnectionHandler, Reactor } from '../io/index.js';
import type { Log } from '../log/index.js';
import { tryParseAuthority } from './authority.js';
import { BaggageTexts } from './baggage.js';
import { acceptHeaders, readMetadata, tryReadConnect } from './connect-headers.js';
import { refuseStream, ServerTunnel, type ServerTunnelCarrier } from './server-tunnel.js';
import { type IoError, type KeepaliveOptions, SessionLink } from './session-link.js';
import type { Baggage, TunnelAcceptor } from './types.js';

/** Ports of the mesh itself in every pod: never a tunnel's target, so that no tunnel leads into another (hbone-and-wds.md 1.1). */
export const ILLEGAL_TARGET_PORTS: ReadonlySet<number> = new Set([15001, 15006, 15008]);

/** SETTINGS of hbone-and-wds.md 1.5. */
const MAX_CONCURRENT_STREAMS = 200;

export interface HboneServerOptions extends KeepaliveOptions {
  /** Default `ILLEGAL_TARGET_PORTS`. */
  readonly illegalTargetPorts?: ReadonlySet<number>;
}

export interface HboneServerDeps {
  readonly reactor: Reactor;
  readonly acceptor: TunnelAcceptor;
  /** `PeerVerifier.clientIdentity` of mesh/tls: the SPIFFE id of the client's leaf (DER). Throws if there is none that counts. */
  readonly verifyClient: (leaf: Buffer | null) => string;
  /** Why a peer whose chain is good is not let in all the same (`PeerVerifier.revocationOf`); null: it is. Default: all are. */
  readonly revocationOf?: (peer: Connection) => string | null;
  readonly log: Log;
}

/** The HBONE side of one pod's 15008 in one worker: give it to the engine's `listen`, with TLS. */
export class HboneServer implements AcceptHandler {
  readonly illegalTargetPorts: ReadonlySet<number>;
  readonly deps: HboneServerDeps;
  readonly baggageTexts = new BaggageTexts();
  readonly authorities = new Memo(tryParseAuthority);
  private readonly options: HboneServerOptions;
  private readonly connections = new Set<ServerConnection>();
  private isDraining = false;
  private finishesHandshakes = false;
  private onDrained: (() => void) | null = null;

  constructor(options: HboneServerOptions, deps: HboneServerDeps) {
    this.options = options;
    this.deps = deps;
    this.illegalTargetPorts = options.illegalTargetPorts ?? ILLEGAL_TARGET_PORTS;
  }

  get connectionCount(): number {
    return this.connections.size;
  }

  onAccepted(accepted: Connection): ConnectionHandler | null {
    if (this.isDraining) return null;
    const connection = new ServerConnection(this, accepted, this.options);
    this.connections.add(connection);
    return connection;
  }

  /** GOAWAY to all peers, and no new connections; open tunnels go on to their end. */
  retire(): void {
    this.isDraining = true;
    for (const connection of [...this.connections]) connection.drain();
  }

  /**
   * The same, but handshakes under way are finished and what comes in their first flight is served, and open tunnels are cut `deadlineMs` from
   * now. `onDrained` once all is closed.
   */
  drain(deadlineMs: number, onDrained: () => void): void {
    this.onDrained = onDrained;
    this.finishesHandshakes = true;
    this.retire();
    this.deps.reactor.setTimer(deadlineMs, () => this.close());
    this.tellIfDrained();
  }

  /** Cuts everything, with a GOAWAY in case the pod's network still carries it. */
  close(): void {
    this.isDraining = true;
    for (const connection of [...this.connections]) connection.closeNow('the server is closing');
  }

  /** Of one whose handshake is not done: true, it may become a session that says GOAWAY as its first word. */
  get lastOnes(): boolean {
    return this.finishesHandshakes;
  }

  get saysGoAway(): boolean {
    return this.isDraining;
  }

  /** What is revoked has changed: ends the connections of peers that are not let in any more. Returns how many. */
  closeRevoked(): number {
    let count = 0;
    for (const connection of [...this.connections]) if (connection.closeIfRevoked()) count++;
    return count;
  }

  connectionOver(connection: ServerConnection): void {
    this.connections.delete(connection);
    this.tellIfDrained();
  }

  private tellIfDrained(): void {
    if (!this.isDraining || this.connections.size > 0) return;
    const { onDrained } = this;
    this.onDrained = null;
    onDrained?.();
  }
}

/** One accepted connection: from a verified peer, carrying CONNECTs. */
class ServerConnection extends SessionLink implements ServerTunnelCarrier {
  peerIdentity = '';
  revocation: string | null = null;
  private readonly server: HboneServer;

  /** `accepted`: its handshake is to come. */
  constructor(server: HboneServer, accepted: Connection, options: KeepaliveOptions) {
    super(server.deps.reactor, options);
    this.server = server;
    this.connection = accepted;
  }

  get peer(): SocketAddress {
    return this.connection!.remote;
  }

  get local(): SocketAddress {
    return this.connection!.local;
  }

  onConnected(connection: Connection): void {
    try {
      this.peerIdentity = this.server.deps.verifyClient(connection.peerCertificate());
      const revocation = this.server.deps.revocationOf?.(connection) ?? null;
      if (revocation !== null) throw new Error(revocation);
    } catch (error) {
      this.server.deps.log.warn({ peer: connection.remote }, `HBONE client refused: ${messageOf(error)}`);
      this.dropNow('peer not accepted');
      return;
    }
    this.startSession(connection, { role: 'server', maxConcurrentStreams: MAX_CONCURRENT_STREAMS });
    if (this.server.saysGoAway) this.drain();
  }

  onRequest(stream: Stream, headers: HeaderList): StreamHandler | null {
    const { deps, illegalTargetPorts } = this.server;
    const request = tryReadConnect(headers, this.server.authorities);
    if (request === null) return refused(stream, 400);
    const { address } = request;
    if (address !== null) {
      if (illegalTargetPorts.has(address.port)) return refused(stream, 503);
      const isOwn = address.address === this.local.address;
      if (!isOwn && deps.acceptor.acceptsAddress?.(address, this.local) !== true) return refused(stream, 400);
    }
    const tunnel = new ServerTunnel(stream, request, readMetadata(headers, this.server.baggageTexts), this);
    tunnel.handler = deps.acceptor.onTunnel(tunnel);
    return tunnel;
  }

  acceptHeaders(baggage: Baggage): HeaderList {
    return acceptHeaders(baggage, this.server.baggageTexts);
  }

  closeIfRevoked(): boolean {
    const revocation =
      this.session === null ? null : (this.server.deps.revocationOf?.(this.connection!) ?? null);
    if (revocation === null) return false;
    this.server.deps.log.warn(
      { peer: this.peer, identity: this.peerIdentity },
      `HBONE client is cut off: ${revocation}`,
    );
    this.revocation = revocation;
    this.closeNow(revocation);
    return true;
  }

  /** Before the handshake's end there is nothing to wait for, unless its peer is to be served. */
  drain(): void {
    if (this.session !== null) this.session.goAway(0);
    else if (!this.server.lastOnes) this.dropNow('the server is draining');
  }

  onGoAway(): void {}

  protected onTick(): void {}

  protected onPeerDead(cause: string): void {
    this.closeNow(cause);
  }

  protected onLinkOver(_cause: string, _error: IoError | null): void {
    this.server.connectionOver(this);
  }
}

/** Of a stream that is refused already. */
const DEAF: StreamHandler = { onHeaders() {}, onData() {}, onEnd() {}, onReset() {}, onWritable() {} };

function refused(stream: Stream, status: number): StreamHandler {
  refuseStream(stream, status);
  return DEAF;
}
