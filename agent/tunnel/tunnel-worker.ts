import { HboneClient } from '../../mesh/hbone/index.js';
import type { Reactor, TlsContextId, TlsOptions } from '../../mesh/io/index.js';
import type { Log } from '../../mesh/log/index.js';
import { Authorizer } from '../../mesh/policy/index.js';
import { createStore, type StagedUpdate, type Store } from '../../mesh/store/index.js';
import { ConnectionTelemetry } from '../../mesh/telemetry/index.js';
import { PeerVerifier } from '../../mesh/tls/index.js';
import { ApplicationDialer, type CaptureHandles, OriginalDestinationMap } from '../capture/index.js';
import { Hostnames, Router, WorkloadTexts } from '../routing/index.js';
import { ConnectionTable } from './connections/connection-table.js';
import { type DrainCounts, drain } from './connections/drain.js';
import { PolicyGuard } from './connections/policy-guard.js';
import { WaitingRoom } from './connections/waiting-room.js';
import { newTunnelCounters, StoreView, type TunnelContext } from './context.js';
import { MeshPod } from './mesh-pod.js';
import type { FromWorker, ToWorker, WorkerData, WorkerPod, WorkerReport } from './messages.js';

/** Metrics and access log lines are handed to the main thread this often. */
const telemetryIntervalMs = 250;
/** What has not moved a byte for this long may be ended by a drain. */
const quietConnectionMs = 1_000;
const handshakeTimeoutMs = 10_000;
/** A certificate that has not come is asked for again after this. */
const wantedAgainMs = 500;
/** Rows that admin gets per worker. */
const maxReportedConnections = 10_000;

export interface TunnelWorkerDeps {
  readonly reactor: Reactor;
  readonly index: number;
  readonly post: (message: FromWorker) => void;
  readonly log: Log;
  /** The reactor's own counters, for the report. */
  readonly engineCounters: () => Readonly<Record<string, number>>;
  /** Connections of the reactor's that are closed and not gone yet. */
  readonly lingering: () => number;
}

/** Everything of the tunnel that lives in one worker thread; driven by the main thread's messages and the reactor's events. */
export class TunnelWorker {
  readonly #options: WorkerData;
  readonly #deps: TunnelWorkerDeps;
  readonly #store: Store = createStore();
  readonly #storeView: StoreView;
  readonly #contexts = new Map<string, TlsContextId>();
  /** Asked for, by identity; until then not again. */
  readonly #wantedUntilMs = new Map<string, number>();
  readonly #pods = new Map<string, MeshPod>();
  readonly #verifier: PeerVerifier;
  readonly #hbone: HboneClient;
  readonly #telemetry: ConnectionTelemetry;
  readonly #connections: ConnectionTable;
  readonly #waitingRoom: WaitingRoom;
  readonly #counters = newTunnelCounters();
  readonly #authorizer: Authorizer;
  readonly #guard: PolicyGuard;
  readonly #texts = new WorkloadTexts();
  readonly #hostnames: Hostnames;
  readonly #router: Router;
  #context: TunnelContext | null = null;
  #telemetryIsOut = false;
  #staged: StagedUpdate | null = null;
  #lagMs = 0;
  #drainCounts: DrainCounts | null = null;

  constructor(options: WorkerData, deps: TunnelWorkerDeps) {
    this.#options = options;
    this.#deps = deps;
    const { reactor } = deps;
    this.#connections = new ConnectionTable({ quietMs: quietConnectionMs }, { reactor });
    this.#storeView = new StoreView(options, { store: this.#store });
    this.#verifier = new PeerVerifier(options);
    this.#hbone = new HboneClient(
      {},
      {
        reactor,
        tlsOf: (identity) => this.#tlsOf(identity),
        verifyServer: (leaf, expected) => this.#verifier.serverIdentity(leaf, expected),
        revocationOf: (peer) => {
          const revocation = this.#verifier.revocationOf(peer);
          if (revocation !== null) this.#counters.revokedServers++;
          return revocation;
        },
        peerAt: ({ address }) => this.#store.workloadByAddress(options.network, address)?.uid ?? null,
      },
    );
    this.#telemetry = new ConnectionTelemetry(
      { accessLog: options.accessLog === 'off' ? null : options.accessLog },
      { nowMs: () => reactor.nowMs, wallClockMs: () => Date.now() },
    );
    this.#authorizer = new Authorizer(options, { store: this.#store });
    this.#guard = new PolicyGuard({
      reactor,
      store: this.#store,
      storeView: this.#storeView,
      authorizer: this.#authorizer,
      connections: this.#connections,
      counters: this.#counters,
    });
    this.#waitingRoom = new WaitingRoom({ maxWaitMs: 5_000, maxWaiting: 10_000 }, { reactor, log: deps.log });
    const nowMs = () => reactor.nowMs;
    const ask = (hostname: string) => deps.post({ kind: 'hostname-wanted', hostname });
    this.#hostnames = new Hostnames({}, { nowMs, ask });
    this.#router = new Router(options, {
      store: this.#store,
      texts: this.#texts,
      hostnames: this.#hostnames,
      nowMs,
      random: Math.random,
    });
    this.#scheduleTelemetry();
  }

  onMessage(message: ToWorker): void {
    switch (message.kind) {
      case 'store':
        this.#store.apply(message.update);
        this.#storeChanged();
        break;
      case 'store-part':
        if (message.isFirst) this.#staged = this.#store.stage();
        this.#staged?.add(message.part);
        this.#authorizer.prepare(message.part.policies);
        if (!message.isLast) break;
        this.#staged?.commit();
        this.#staged = null;
        this.#storeChanged();
        break;
      case 'certificate':
        this.#wantedUntilMs.delete(message.identity);
        if (message.context === null) this.#contexts.delete(message.identity);
        else this.#contexts.set(message.identity, message.context);
        this.#waitingRoom.poke();
        break;
      case 'hostname':
        this.#hostnames.answered(message.answer);
        this.#waitingRoom.poke();
        break;
      case 'revoked':
        this.#verifier.setRevoked(message.keys);
        this.#hbone.closeRevoked();
        for (const pod of this.#pods.values()) pod.hbone.closeRevoked();
        break;
      case 'pods':
        for (const pod of message.pods) this.#addPod(pod, message.handles);
        break;
      case 'release':
        this.#release(message.uid, message.reason);
        break;
      case 'drain':
        this.#drain(message.deadlineMs);
        break;
      case 'report':
        this.#deps.post({
          kind: 'report',
          request: message.request,
          report: this.#report(message.withConnections),
        });
        break;
      case 'telemetry-taken':
        this.#telemetryIsOut = false;
        break;
      case 'log-level':
        this.#deps.log.level = message.level;
        break;
    }
  }

  #storeChanged(): void {
    this.#storeView.forget();
    this.#hbone.peersChanged();
    this.#waitingRoom.poke();
    this.#guard.changed();
  }

  #addPod(pod: WorkerPod, handles: CaptureHandles): void {
    this.#pods.get(pod.uid)?.stopAccepting();
    this.#context ??= this.#makeContext(handles);
    const deps = {
      context: this.#context,
      verifier: this.#verifier,
      tlsOf: (identity: string) => this.#tlsOf(identity),
      log: this.#deps.log,
    };
    this.#pods.set(pod.uid, new MeshPod(pod, deps));
  }

  /** Un-enrolled: what is open goes on to its end. Deleted: all is cut, and peers are told by GOAWAY while the network may still be there. */
  #release(uid: string, reason: 'unenrolled' | 'deleted'): void {
    const pod = this.#pods.get(uid);
    this.#pods.delete(uid);
    this.#storeView.forget();
    pod?.release();
    this.#waitingRoom.giveUpPod(uid);
    this.#hbone.retireSource(uid);
    if (reason === 'deleted') {
      this.#connections.abort('pod deleted', uid);
      this.#hbone.closeSource(uid);
      pod?.hbone.close();
    }
    this.#answerAfterTurn({ kind: 'released', uid });
  }

  #drain(deadlineMs: number): void {
    const pods = [...this.#pods.values()];
    for (const pod of pods) pod.stopAccepting();
    const { reactor, lingering } = this.#deps;
    this.#deps.post({ kind: 'draining' });
    const servers = pods.map((pod) => pod.hbone);
    const waiting = () => this.#waitingRoom.size;
    const deps = {
      reactor,
      lingering,
      waiting,
      connections: this.#connections,
      client: this.#hbone,
      servers,
    };
    this.#drainCounts = drain(deadlineMs, deps, () => {
      this.#postTelemetry();
      this.#postDrainCounts();
      this.#deps.post({ kind: 'drained' });
    });
  }

  #postDrainCounts(): void {
    if (this.#drainCounts !== null) this.#deps.post({ kind: 'drain-count', ...this.#drainCounts });
  }

  /** Slabs leave at the end of the turn: only then may descriptors go. */
  #answerAfterTurn(answer: FromWorker): void {
    this.#deps.reactor.setTimer(0, () => this.#deps.post(answer));
  }

  #makeContext(handles: CaptureHandles): TunnelContext {
    return {
      reactor: this.#deps.reactor,
      store: this.#store,
      storeView: this.#storeView,
      texts: this.#texts,
      router: this.#router,
      hbone: this.#hbone,
      telemetry: this.#telemetry,
      connections: this.#connections,
      waitingRoom: this.#waitingRoom,
      guard: this.#guard,
      originalDestinations: new OriginalDestinationMap({ handles }),
      applicationDialer: new ApplicationDialer({ workerIndex: this.#deps.index, handles }),
      counters: this.#counters,
      network: this.#options.network,
      hasCertificate: (identity) => {
        if (this.#contextOf(identity) !== undefined) return true;
        this.#want(identity);
        return false;
      },
    };
  }

  /** Thousands of connections may wait for one certificate, and ask whenever something has changed. */
  #want(identity: string): void {
    const { nowMs } = this.#deps.reactor;
    if (nowMs < (this.#wantedUntilMs.get(identity) ?? 0)) return;
    this.#wantedUntilMs.set(identity, nowMs + wantedAgainMs);
    this.#deps.post({ kind: 'identity-wanted', identity });
  }

  #tlsOf(identity: string): TlsOptions | null {
    const context = this.#contextOf(identity);
    return context === undefined ? null : { context, handshakeTimeoutMs };
  }

  /** Of this identity or, while that has none, of the same account in a trust domain that is being left. */
  #contextOf(identity: string): TlsContextId | undefined {
    const context = this.#contexts.get(identity);
    if (context !== undefined || this.#options.trustDomainAliases.length === 0) return context;
    for (const alias of this.#verifier.aliasesOf(identity)) {
      const found = this.#contexts.get(alias);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #scheduleTelemetry(): void {
    const { reactor } = this.#deps;
    const dueMs = reactor.nowMs + telemetryIntervalMs;
    reactor.setTimer(telemetryIntervalMs, () => {
      this.#lagMs = Math.max(this.#lagMs, reactor.nowMs - dueMs);
      if (!this.#telemetryIsOut) this.#postTelemetry();
      this.#postDrainCounts();
      this.#scheduleTelemetry();
    });
  }

  #postTelemetry(): void {
    const batch = this.#telemetry.takeBatch();
    if (batch === null) return;
    this.#telemetryIsOut = true;
    this.#deps.post({ kind: 'telemetry', batch });
  }

  #report(withConnections: boolean): WorkerReport {
    const lagMs = this.#lagMs;
    this.#lagMs = 0;
    return {
      lagMs,
      connections: withConnections ? this.#connections.summaries(maxReportedConnections) : [],
      engine: this.#deps.engineCounters(),
      hbone: { ...this.#hbone.stats },
      tunnel: {
        ...this.#counters,
        ejections: this.#router.outliers.ejections,
        open: this.#connections.size,
        waiting: this.#waitingRoom.size,
        pods: this.#pods.size,
      },
    };
  }
}
