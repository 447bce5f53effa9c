import type { SocketAddress } from '../common/address.js';
import { Memo } from '../common/memo.js';
import type { HeaderList } from '../http2/index.js';
import type { Connection, Reactor } from '../io/index.js';
import { BaggageTexts } from './baggage.js';
import type { ClientConnectionOptions } from './client-connection.js';
import { ClientTunnel } from './client-tunnel.js';
import { connectHeaders } from './connect-headers.js';
import { PoolSlot } from './pool-slot.js';
import type { KeepaliveOptions } from './session-link.js';
import { TraceparentSource } from './traceparent.js';
import type {
  ClientTunnelHandler,
  ConnectMetadata,
  NextHop,
  OpenOptions,
  TlsOf,
  Tunnel,
  TunnelFailure,
} from './types.js';

/** Defaults are those of hbone-and-wds.md 1.4 and 1.5. */
export interface HboneClientOptions extends KeepaliveOptions {
  /** Default 10 s. */
  readonly connectTimeoutMs?: number;
  /** Default 100. */
  readonly maxTunnelsPerConnection?: number;
  /** Default 5 min. */
  readonly idleTimeoutMs?: number;
  /** From `open` to the peer's answer, for callers that do not say. Default 30 s: connect, handshake, and the 10 s that a peer's dial may take. */
  readonly tunnelTimeoutMs?: number;
  /** Tunnels that may wait for one connection to be made. Default 1024; more fail at once. */
  readonly maxWaitingTunnels?: number;
  /** Application bytes that may ride behind a CONNECT before its answer; kept until then. Default 16 KiB; 0 turns it off. */
  readonly earlyDataBytes?: number;
}

export interface HboneClientDeps {
  readonly reactor: Reactor;
  /** Asked for each new tunnel and connection: a renewed certificate is used at once, an expired one never. */
  readonly tlsOf: TlsOf;
  /** `PeerVerifier.serverIdentity` of mesh/tls. Throws unless the leaf (DER) is for one of the expected identities. */
  readonly verifyServer: (leaf: Buffer | null, expected: readonly string[]) => string;
  /** Why a server whose chain is good is not talked to all the same (`PeerVerifier.revocationOf`); null: it is. Default: all are. */
  readonly revocationOf?: (peer: Connection) => string | null;
  /** Uid of the workload at an address now; null: none, or a virtual address. Absent: `peersChanged` does nothing. */
  readonly peerAt?: (address: SocketAddress) => string | null;
}

/** Counts for metrics and admin, at this moment. */
export interface HboneClientStats {
  readonly connections: number;
  readonly tunnels: number;
  readonly waitingTunnels: number;
}

const DRAINING: TunnelFailure = { flag: 'CONNECT', message: 'the agent is shutting down', isOurs: true };
const SOURCE_GONE: TunnelFailure = { flag: 'CONNECT', message: 'the source workload is gone', isOurs: true };

/** Opens tunnels to other nodes over pooled connections. One per worker. Synchronous: a handler may be called before `open` returns. */
export class HboneClient {
  private readonly deps: HboneClientDeps;
  private readonly connectionOptions: ClientConnectionOptions;
  private readonly maxWaiting: number;
  private readonly earlyDataBytes: number;
  private readonly tunnelTimeoutMs: number;
  private readonly traceparents = new TraceparentSource();
  private readonly baggageTexts = new BaggageTexts();
  private readonly authorities = new Memo((text): HeaderList[number] => [':authority', text]);
  /** Of hops that their owner keeps: a key is long text. */
  private readonly keys = new WeakMap<NextHop, string>();
  private readonly slots = new Map<string, PoolSlot>();
  /** Of sources that have left: they only finish what they have. */
  private readonly leaving = new Set<PoolSlot>();
  private isDraining = false;
  private onDrained: (() => void) | null = null;

  constructor(options: HboneClientOptions, deps: HboneClientDeps) {
    this.deps = deps;
    this.maxWaiting = options.maxWaitingTunnels ?? 1024;
    this.earlyDataBytes = options.earlyDataBytes ?? 16 * 1024;
    this.tunnelTimeoutMs = options.tunnelTimeoutMs ?? 30_000;
    this.connectionOptions = {
      connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
      maxTunnels: options.maxTunnelsPerConnection ?? 100,
      idleTimeoutMs: options.idleTimeoutMs ?? 300_000,
      pingIntervalMs: options.pingIntervalMs ?? 10_000,
      pingTimeoutMs: options.pingTimeoutMs ?? 20_000,
    };
  }

  get stats(): HboneClientStats {
    const sum = { connections: 0, tunnels: 0, waitingTunnels: 0 };
    for (const slot of this.allSlots()) {
      sum.connections += slot.size;
      sum.tunnels += slot.openTunnels;
      sum.waitingTunnels += slot.waitingTunnels;
    }
    return sum;
  }

  /**
   * A tunnel to `authority` (ip:port or hostname:port) through `hop` (keep the object where you can, its key is then made once). Whatever goes wrong comes as `onFailed`. A `traceparent` is made up where
   * `metadata` has none.
   */
  open(
    hop: NextHop,
    authority: string,
    metadata: ConnectMetadata,
    handler: ClientTunnelHandler,
    { timeoutMs = this.tunnelTimeoutMs, undelivered = null }: OpenOptions = {},
  ): Tunnel {
    const traceparent = metadata.traceparent ?? this.traceparents.next();
    const headers = connectHeaders(this.authorities.of(authority), metadata, traceparent, this.baggageTexts);
    const key = this.keyOf(hop);
    const slot = this.slots.get(key) ?? this.newSlot(key, hop);
    const options = { headers, earlyDataBytes: this.earlyDataBytes, timeoutMs, undelivered };
    const tunnel = new ClientTunnel(options, handler, slot);
    slot.place(tunnel);
    // it failed at once, without a connection
    if (slot.isEmpty) this.forget(key, slot);
    return tunnel;
  }

  /**
   * Workloads have come or gone. Connections to one that is gone take no new tunnels, and are asked for a sign of life: a pod's network may be
   * gone before anybody there could say GOAWAY.
   */
  peersChanged(): void {
    const { peerAt } = this.deps;
    if (peerAt === undefined) return;
    for (const slot of this.allSlots()) slot.peerIs(peerAt(slot.hop.address));
  }

  /** The pod is gone: its connections end at once, with a GOAWAY in case its network still carries it. */
  closeSource(sourceUid: string): void {
    for (const slot of this.allSlots()) {
      if (slot.hop.sourceUid === sourceUid) slot.close(SOURCE_GONE, true);
    }
  }

  /** The pod has left the mesh: its namespace is not dialled from any more, tunnels that are open go on to their end. */
  retireSource(sourceUid: string): void {
    for (const [key, slot] of [...this.slots]) {
      if (slot.hop.sourceUid !== sourceUid) continue;
      // The pod may come back: it then gets a slot of its own.
      this.slots.delete(key);
      this.leaving.add(slot);
      slot.close(SOURCE_GONE, false);
      if (slot.isEmpty) this.leaving.delete(slot);
    }
  }

  /**
   * Connections leave with their last tunnel; tunnels go on until `deadlineMs` from now and are cut then. What was accepted before may still open
   * tunnels: whoever drains takes no new connections. `onDrained` once all is closed.
   */
  drain(deadlineMs: number, onDrained: () => void): void {
    this.isDraining = true;
    this.onDrained = onDrained;
    for (const slot of this.allSlots()) slot.drain();
    this.deps.reactor.setTimer(deadlineMs, () => {
      for (const slot of this.allSlots()) slot.close(DRAINING, true);
    });
    this.tellIfDrained();
  }

  /** What is revoked has changed: ends the connections to servers that are not talked to any more. Returns how many. */
  closeRevoked(): number {
    let count = 0;
    for (const slot of this.allSlots()) count += slot.closeRevoked();
    return count;
  }

  private keyOf(hop: NextHop): string {
    let key = this.keys.get(hop);
    if (key === undefined) {
      key = keyOf(hop);
      this.keys.set(hop, key);
    }
    return key;
  }

  private newSlot(key: string, hop: NextHop): PoolSlot {
    const onEmpty = (slot: PoolSlot): void => this.forget(key, slot);
    const slot = new PoolSlot(hop, this.connectionOptions, this.maxWaiting, {
      ...this.deps,
      baggageTexts: this.baggageTexts,
      onEmpty,
      openTunnel: (...tunnel) => this.open(...tunnel),
    });
    this.slots.set(key, slot);
    slot.peerIs(this.deps.peerAt?.(hop.address) ?? null);
    if (this.isDraining) slot.drain();
    return slot;
  }

  private forget(key: string, slot: PoolSlot): void {
    if (this.slots.get(key) === slot) this.slots.delete(key);
    this.leaving.delete(slot);
    this.tellIfDrained();
  }

  private allSlots(): PoolSlot[] {
    return [...this.slots.values(), ...this.leaving];
  }

  private tellIfDrained(): void {
    if (!this.isDraining || this.slots.size > 0 || this.leaving.size > 0) return;
    const { onDrained } = this;
    this.onDrained = null;
    onDrained?.();
  }
}

/** Everything that a tunnel's connection must have in common with it (types.ts `NextHop`). The uid is free text and stands last; the other parts hold no space. */
function keyOf(hop: NextHop): string {
  const { through } = hop;
  const { address, port } = hop.address;
  const identities = hop.expectedIdentities.join(',');
  const own = `${address} ${port} ${hop.netnsFd} ${hop.fromAddress ?? '-'} ${hop.sourceIdentity} ${identities} ${hop.sourceUid}`;
  return through === undefined ? own : `${own} through ${through.authority} ${keyOf(through.hop)}`;
}
