import type { Timer } from '../io/index.js';
import type { BaggageTexts } from './baggage.js';
import type { HboneClientDeps } from './client.js';
import { ClientConnection, type ClientConnectionOptions, type ConnectionPool } from './client-connection.js';
import type { ClientTunnel, TunnelOwner } from './client-tunnel.js';
import type { GatewayLinkDeps } from './gateway-link.js';
import type { NextHop, TunnelFailure } from './types.js';

export interface PoolSlotDeps extends HboneClientDeps, GatewayLinkDeps {
  readonly baggageTexts: BaggageTexts;
  /** The slot has neither connections nor waiting tunnels any more. */
  readonly onEmpty: (slot: PoolSlot) => void;
}

/** The connections of one pool key: at most one takes new tunnels, at most one is being made, the others finish theirs. */
export class PoolSlot implements ConnectionPool, TunnelOwner {
  readonly hop: NextHop;
  peerMaxStreams = Number.POSITIVE_INFINITY;
  private readonly options: ClientConnectionOptions;
  private readonly maxWaiting: number;
  private readonly deps: PoolSlotDeps;
  private readonly connections = new Set<ClientConnection>();
  private current: ClientConnection | null = null;
  private dialing: ClientConnection | null = null;
  /** In order of arrival. */
  private readonly waiting = new Set<ClientTunnel>();
  private closed: TunnelFailure | null = null;
  private isDraining = false;
  /** Whose address it goes to. */
  private peer: string | null = null;

  constructor(hop: NextHop, options: ClientConnectionOptions, maxWaiting: number, deps: PoolSlotDeps) {
    this.hop = hop;
    this.options = options;
    this.maxWaiting = maxWaiting;
    this.deps = deps;
  }

  get baggageTexts(): BaggageTexts {
    return this.deps.baggageTexts;
  }

  get isEmpty(): boolean {
    return this.connections.size === 0 && this.waiting.size === 0;
  }

  get size(): number {
    return this.connections.size;
  }

  get waitingTunnels(): number {
    return this.waiting.size;
  }

  get openTunnels(): number {
    let sum = 0;
    for (const connection of this.connections) sum += connection.openTunnels;
    return sum;
  }

  /** Puts a tunnel on a connection with room, or has it wait for one. */
  place(tunnel: ClientTunnel): void {
    if (this.closed !== null) {
      tunnel.fail(this.closed);
      return;
    }
    const tls = this.deps.tlsOf(this.hop.sourceIdentity);
    if (tls === null) {
      tunnel.fail(noCertificate(this.hop.sourceIdentity));
      return;
    }
    // a renewed certificate: tunnels that are open stay, new ones go on a new connection
    if (this.current !== null && this.current.tlsContext !== tls.context) this.current.retire();
    if (this.waiting.size === 0 && this.beginOnCurrent(tunnel)) return;
    if (this.waiting.size >= this.maxWaiting) {
      tunnel.fail(tooManyWait(this.hop, this.maxWaiting));
      return;
    }
    this.waiting.add(tunnel);
    this.dial();
  }

  withdraw(tunnel: ClientTunnel): void {
    this.waiting.delete(tunnel);
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    return this.deps.reactor.setTimer(delayMs, callback);
  }

  /** No new tunnels; `waiting` ones fail, open ones go on unless `now`. */
  close(failure: TunnelFailure, now: boolean): void {
    this.closed = failure;
    this.failWaiting(failure);
    for (const connection of [...this.connections]) {
      if (now) connection.closeNow(failure.message);
      else connection.retire();
    }
  }

  /** Who is at its address now. Somebody else than before, or nobody: connections to whoever was there prove that they are alive, or end. */
  peerIs(peer: string | null): void {
    const before = this.peer;
    this.peer = peer;
    if (before === null || before === peer) return;
    for (const connection of [...this.connections]) connection.doubt();
  }

  /** What waits still gets its connection; none stays for tunnels to come. */
  drain(): void {
    this.isDraining = true;
    for (const connection of [...this.connections]) if (connection !== this.dialing) connection.retire();
  }

  closeRevoked(): number {
    let count = 0;
    for (const connection of [...this.connections]) if (connection.closeIfRevoked()) count++;
    return count;
  }

  connectionReady(connection: ClientConnection): void {
    this.dialing = null;
    this.current = connection;
    for (const tunnel of this.waiting) {
      if (!connection.hasRoom) break;
      this.waiting.delete(tunnel);
      connection.begin(tunnel);
    }
    if (this.waiting.size > 0) this.dial();
    if (this.isDraining) connection.retire();
  }

  connectionFailed(connection: ClientConnection, failure: TunnelFailure): void {
    if (this.dialing !== connection) return;
    this.dialing = null;
    this.failWaiting(failure);
  }

  connectionRetired(connection: ClientConnection): void {
    if (this.current === connection) this.current = null;
  }

  connectionOver(connection: ClientConnection): void {
    this.connectionRetired(connection);
    this.connections.delete(connection);
    if (this.isEmpty) this.deps.onEmpty(this);
  }

  private beginOnCurrent(tunnel: ClientTunnel): boolean {
    const { current } = this;
    if (current === null) return false;
    if (current.hasRoom) {
      current.begin(tunnel);
      return true;
    }
    // full, or going away: it finishes what it has and does not come back
    current.retire();
    return false;
  }

  private dial(): void {
    if (this.dialing !== null) return;
    this.current?.retire();
    const tls = this.deps.tlsOf(this.hop.sourceIdentity);
    if (tls === null) {
      this.failWaiting(noCertificate(this.hop.sourceIdentity));
      return;
    }
    this.dialing = new ClientConnection(this.hop, tls, this.options, { ...this.deps, pool: this });
    this.connections.add(this.dialing);
  }

  private failWaiting(failure: TunnelFailure): void {
    const tunnels = [...this.waiting];
    this.waiting.clear();
    for (const tunnel of tunnels) tunnel.fail(failure);
  }
}

function noCertificate(identity: string): TunnelFailure {
  return { flag: 'IDENTITY_ERROR', message: `no valid certificate for ${identity} yet`, isOurs: true };
}

function tooManyWait(hop: NextHop, limit: number): TunnelFailure {
  return {
    flag: 'CONNECT',
    isOurs: true,
    message: `${limit} tunnels already wait for a connection to ${hop.address.address}`,
  };
}
