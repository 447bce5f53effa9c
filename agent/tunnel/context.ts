import type { SocketAddress } from '../../mesh/common/address.js';
import type { HboneClient } from '../../mesh/hbone/index.js';
import type { ConnectionHandler, IoErrorCode, Reactor } from '../../mesh/io/index.js';
import type { Store, Workload } from '../../mesh/store/index.js';
import type { BaggageLabels, ConnectionTelemetry, Party } from '../../mesh/telemetry/index.js';
import type { ApplicationDialer, OriginalDestinations } from '../capture/index.js';
import type { Router, WorkloadTexts } from '../routing/index.js';
import type { ConnectionTable } from './connections/connection-table.js';
import type { PolicyGuard } from './connections/policy-guard.js';
import type { WaitingRoom } from './connections/waiting-room.js';
import type { WorkerPod } from './messages.js';

/** What every connection of a worker needs. */
export interface TunnelContext {
  readonly reactor: Reactor;
  readonly store: Store;
  readonly storeView: StoreView;
  readonly texts: WorkloadTexts;
  readonly router: Router;
  readonly hbone: HboneClient;
  readonly telemetry: ConnectionTelemetry;
  readonly connections: ConnectionTable;
  readonly waitingRoom: WaitingRoom;
  readonly guard: PolicyGuard;
  readonly originalDestinations: OriginalDestinations;
  readonly applicationDialer: ApplicationDialer;
  readonly counters: TunnelCounters;
  readonly network: string;
  /** True: a certificate of this identity is at hand. False: it has been asked for. */
  hasCertificate(identity: string): boolean;
}

/** Plain numbers, shown by metrics. */
export interface TunnelCounters {
  /** Accepted on 15001 without an unread original destination: reset. */
  resetNoOriginalDestination: number;
  resetIllegalPort: number;
  resetNoWorkload: number;
  /** Inbound, refused or closed by policies. */
  resetPolicy: number;
  /** Connections to servers, and of clients, refused or cut off because a certificate of their chain is revoked. */
  revokedServers: number;
  revokedClients: number;
  /** Outbound connects that failed and went on to another endpoint. */
  retriedConnects: number;
}

export function newTunnelCounters(): TunnelCounters {
  return {
    resetNoOriginalDestination: 0,
    resetIllegalPort: 0,
    resetNoWorkload: 0,
    resetPolicy: 0,
    revokedServers: 0,
    revokedClients: 0,
    retriedConnects: 0,
  };
}

/** TCP connect of the mesh's own dials (hbone-and-wds.md 1.4). */
export const connectTimeoutMs = 10_000;

export function party(
  workload: Workload | null | undefined,
  identity: string | null,
  baggage: BaggageLabels | null = null,
): Party {
  return { workload: workload ?? null, identity, baggage };
}

/** The reason of a failed dial lies here, not at the endpoint. */
export function isOurs(code: IoErrorCode): boolean {
  return code === 'NO_RESOURCES' || code === 'HANDLER_FAILED';
}

/** What every connection asks of the store; asked once, and again whenever the store has changed. */
export class StoreView {
  readonly #store: Store;
  readonly #network: string;
  #own = new Map<WorkerPod, Workload>();
  #peers = new WeakMap<SocketAddress, { readonly workload: Workload | undefined }>();

  constructor(options: { readonly network: string }, deps: { readonly store: Store }) {
    this.#network = options.network;
    this.#store = deps.store;
  }

  /** The captured pod's own workload, as the controller describes it. */
  ownOf(pod: WorkerPod): Workload | undefined {
    let own = this.#own.get(pod);
    if (own === undefined) {
      own = this.#store.workloadOfPod(pod.namespace, pod.name, pod.serviceAccount);
      if (own !== undefined) this.#own.set(pod, own);
    }
    return own;
  }

  /** Whose address a peer's is. `peer` is best an object that its connection keeps. */
  peerAt(peer: SocketAddress): Workload | undefined {
    let known = this.#peers.get(peer);
    if (known === undefined) {
      known = { workload: this.#store.workloadByAddress(this.#network, peer.address) };
      this.#peers.set(peer, known);
    }
    return known.workload;
  }

  /** The store or the pods have changed. */
  forget(): void {
    this.#own = new Map();
    this.#peers = new WeakMap();
  }
}

/** Of a connection that is dialled by whoever becomes its handler right after. */
export const noHandler: ConnectionHandler = {
  onConnected() {},
  onReadable(connection) {
    connection.pauseReading();
  },
  onDrained() {},
  onClosed() {},
};
