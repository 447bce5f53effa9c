import { performance } from 'node:perf_hooks';
import type { AdminDeps, AdminServers } from '../mesh/admin/index.js';
import { systemClock } from '../mesh/common/clock.js';
import { CertificateManager, derToPem, RevocationFile } from '../mesh/identity/index.js';
import { EngineTlsContexts, WorkerPool } from '../mesh/io/index.js';
import { LineWriter, type Log } from '../mesh/log/index.js';
import { createStore, type Store, type StoreUpdate } from '../mesh/store/index.js';
import {
  MetricsRegistry,
  processMetrics,
  TcpMetrics,
  type TelemetryBatch,
  xdsMetrics,
} from '../mesh/telemetry/index.js';
import { TlsContexts } from '../mesh/tls/index.js';
import { CertificateClient, XdsClient } from '../mesh/xds/index.js';
import { adminDeps, openAdmin } from './admin.js';
import { Arrivals } from './arrivals.js';
import {
  Capture,
  type CapturedPod,
  type CaptureListener,
  type PodSource,
  type PodState,
} from './capture/index.js';
import { CniInstaller } from './cni/index.js';
import { DnsProxy } from './dns/index.js';
import { DrainRecord } from './drain-record.js';
import { LocalIdentities } from './identities.js';
import { agentMetrics } from './metrics.js';
import { type AgentOptions, cniOf, controllerOf, outlierDetectionOf } from './options.js';
import { openPodSource } from './pods/index.js';
import { HostLookups } from './routing/index.js';
import { Succession } from './succession.js';
import type { FromWorker, ToWorker, WorkerData, WorkerReport } from './tunnel/index.js';
import type { AgentDeps } from './types.js';
import { Uninstall } from './uninstall.js';
import { Workers } from './workers.js';

/** At the end, for whoever reads the access log. */
const accessLogFlushMs = 1_000;
const adminPatienceMs = 5_000;

/** Nothing is accepted any more; the process may end. */
type Ending = Readonly<Record<'stopped' | 'ended', Promise<void>>>;

/** The agent's rooms, put together. One per process; nobody imports it but `main.ts`. */
export class Agent implements CaptureListener {
  readonly #options: AgentOptions;
  readonly #log: Log;
  readonly #store: Store = createStore();
  readonly #pool: WorkerPool<ToWorker, FromWorker>;
  readonly #workers: Workers;
  readonly #dns: DnsProxy;
  readonly #xds: XdsClient;
  readonly #certificates: CertificateManager;
  readonly #identities: LocalIdentities;
  readonly #pods: PodSource;
  readonly #capture: Capture;
  readonly #succession: Succession;
  readonly #drainRecord: DrainRecord;
  readonly #arrivals: Arrivals;
  readonly #tcpMetrics: TcpMetrics;
  readonly #metrics = new MetricsRegistry();
  /** As of the last scrape. */
  #reports: readonly (WorkerReport | null)[] = [];
  readonly #accessLog = new LineWriter();
  readonly #hostLookups = new HostLookups({}, { nowMs: () => performance.now() });
  /** Of the access log, those that the metrics know of. */
  #droppedLines = 0;
  readonly #revocations: RevocationFile | null;
  /** As the controller pushed it last. */
  #trustBundlePem = '';
  #admin: AdminServers | null = null;
  #captureStarted = false;
  #draining = false;
  #ending: Ending | null = null;
  #dnsRetired: Promise<void> | null = null;
  readonly #uninstall: Uninstall;
  readonly #cni: CniInstaller | null;
  readonly #onSucceeded: () => void;

  constructor(options: AgentOptions, deps: AgentDeps) {
    this.#onSucceeded = deps.onSucceeded;
    this.#options = options;
    this.#log = deps.log;
    this.#tcpMetrics = new TcpMetrics({}, { nowMs: () => performance.now() });
    this.#drainRecord = new DrainRecord(options, { own: () => this.#workers.drainCounts, log: deps.log });
    this.#pool = this.#makePool();
    this.#dns = new DnsProxy(options, { store: this.#store, log: deps.log.child({ room: 'dns' }) });
    this.#workers = new Workers({ count: options.workers }, { pool: this.#pool, store: this.#store });
    this.#arrivals = new Arrivals({}, { workers: this.#workers, dns: this.#dns });
    const controller = { ...controllerOf(options), learntRoots: () => this.#trustBundlePem };
    this.#xds = new XdsClient(
      {
        controller,
        node: {
          podName: `culvert-agent-${options.node}`,
          podNamespace: options.podNamespace,
          nodeName: options.node,
        },
      },
      {
        log: deps.log.child({ room: 'xds' }),
        onUpdate: (update) => this.#applyStore(update),
        onConnected: () => this.#certificates.retryNow(),
        onTrustBundle: (roots) => this.#applyTrustBundle(roots),
      },
    );
    const ca = new CertificateClient({ controller });
    this.#certificates = new CertificateManager(
      {},
      {
        fetch: (identity, csr) => ca.fetchCertificate(identity, csr),
        clock: systemClock,
        log: deps.log.child({ room: 'certificates' }),
      },
    );
    this.#revocations = this.#makeRevocations();
    this.#makeContexts();
    this.#identities = new LocalIdentities(options, { store: this.#store, certificates: this.#certificates });
    this.#pods = openPodSource(options, { log: deps.log.child({ room: 'pods' }) });
    this.#capture = this.#makeCapture();
    this.#succession = this.#makeSuccession();
    const cni = cniOf(options);
    this.#cni = cni && new CniInstaller(cni, { log: deps.log.child({ room: 'cni' }) });
    this.#uninstall = new Uninstall(options, {
      release: () => this.#release(),
      onWithdrawn: () => void this.stop().then(deps.onWithdrawn),
      log: deps.log,
    });
    this.#addMetrics();
  }

  #addMetrics(): void {
    const sources = [
      processMetrics({ component: 'agent', tag: 'dev' }),
      () => this.#tcpMetrics.collect(),
      () => this.#dns.metrics(),
      xdsMetrics(() => this.#xds.state),
      agentMetrics({
        isReady: () => this.#pending().length === 0,
        capture: () => this.#capture.status(),
        certificates: () => this.#certificates.dump(),
        revocations: () => this.#revocations,
        sourceAges: () => this.#pods.ages,
        pool: this.#pool,
        workers: () => this.#reports,
        drained: () => this.#drainRecord.total,
      }),
    ];
    for (const source of sources) this.#metrics.add(source);
  }

  /** Resolves when the hooks are attached; the controller may still be away (readiness tells). */
  async start(): Promise<void> {
    // Our own cgroup is listed before we connect to anything.
    this.#capture.prepare();
    this.#cni?.start();
    this.#pool.start();
    this.#xds.start();
    // Known before anything is taken over from an agent that runs here. Its error is capture.start's, too.
    void this.#pods.open().catch(() => {});
    if (this.#options.source === 'kubernetes') await this.#uninstall.start();
    const handed = await this.#succession.begin();
    if (handed === null) await this.#startAdmin();
    await this.#capture.start(handed ?? []);
    await this.#succession.complete();
    // At once: a third agent that found nobody here would begin as if it were alone.
    if (!this.#uninstall.isMarked) await this.#succession.serve();
    if (handed !== null) await this.#startAdmin(adminPatienceMs);
    this.#captureStarted = true;
    this.#log.info({ node: this.#options.node }, 'capture is in place');
  }

  /** Pins stay: what is captured stays captured (and is refused) until the next agent adopts it. That one may come while this one drains. */
  async stop(): Promise<void> {
    await this.#drain().ended;
  }

  /** The next agent serves. Resolves when nothing here accepts and the admin ports are free; open connections go on, as after SIGTERM. */
  async #giveWay(): Promise<void> {
    const { stopped, ended } = this.#drain();
    await stopped;
    this.#dnsRetired = this.#dns.retire();
    await this.#capture.abdicate();
    await this.#admin?.close();
    this.#admin = null;
    void ended.then(this.#onSucceeded);
  }

  /** For good: what runs here goes on, nothing new comes. */
  async #release(): Promise<void> {
    this.#cni?.uninstall();
    await this.#capture.release();
    this.#succession.stop();
    await this.#pods.release();
  }

  #drain(): Ending {
    if (this.#ending === null) {
      this.#draining = true;
      this.#pods.stopNoting(); // or it would write against the next agent
      this.#uninstall.stop(); // to release the node, and to say so, is the next agent's
      this.#cni?.stop(); // or it would put back what that one takes away
      this.#succession.abandon();
      let onStopped = () => {};
      const stopped = new Promise<void>((resolve) => {
        onStopped = resolve;
      });
      this.#ending = { stopped, ended: this.#end(onStopped) };
    }
    return this.#ending;
  }

  async #end(onStopped: () => void): Promise<void> {
    const { drain } = this.#options;
    await this.#workers.drain(drain, onStopped);
    this.#log.info({ ...this.#workers.drainCounts }, 'drained');
    if (!this.#uninstall.isMarked) this.#drainRecord.write();
    this.#succession.stop();
    this.#workers.giveUpAnswers();
    await this.#dnsRetired;
    this.#arrivals.close();
    this.#dns.close();
    await this.#capture.stop();
    this.#xds.stop();
    this.#revocations?.close();
    this.#certificates.close();
    await this.#admin?.close();
    await this.#pool.stop();
    await this.#accessLog.flush(accessLogFlushMs);
  }

  async onCaptured(pod: CapturedPod): Promise<void> {
    this.#dns.addPod(pod, this.#capture.handles);
    try {
      this.#identities.add(pod.pod);
      await this.#succession.ready(pod);
      this.#arrivals.add(pod, this.#capture.handles);
    } catch (error) {
      this.#dns.releasePod(pod.pod.uid); // the descriptor of its namespace is closed now
      throw error;
    }
  }

  async onReleased(uid: string, reason: 'unenrolled' | 'deleted'): Promise<void> {
    this.#arrivals.remove(uid);
    this.#dns.releasePod(uid);
    await this.#workers.releasePod(uid, reason);
    this.#identities.remove(uid);
  }

  /** A pod that waits was in the mesh before, or is not yet: nobody is told anything new. Who gives way tells nothing any more. */
  onState(uid: string, state: PodState): void {
    if (!this.#draining && state !== 'waiting' && state !== 'absent')
      this.#pods.noteCaptured(uid, state === 'captured');
  }

  async #startAdmin(patienceMs = 0): Promise<void> {
    const isOver = () => this.#draining;
    this.#admin = await openAdmin(this.#options, this.#adminDeps(), { patienceMs, isOver });
  }

  #adminDeps(): AdminDeps {
    return adminDeps({
      options: this.#options,
      log: this.#log,
      workers: this.#workers,
      pool: this.#pool,
      pending: () => this.#pending(),
      metrics: async (accept) => {
        this.#reports = await this.#workers.reports();
        return this.#metrics.render(accept);
      },
      dumps: {
        workloads: () => this.#store.snapshot(),
        xds: () => this.#xds.state,
        certificates: () => this.#certificates.dump(),
        capture: () => this.#capture.status(),
        manifests: () => ({ problems: this.#pods.problems }),
        dns: () => this.#dns.report(),
      },
    });
  }

  #makePool(): WorkerPool<ToWorker, FromWorker> {
    const { network, trustDomain, trustDomainAliases, accessLog, logLevel, workers } = this.#options;
    const workerData: WorkerData = {
      network,
      trustDomain,
      trustDomainAliases,
      accessLog,
      logLevel,
      outlierDetection: outlierDetectionOf(this.#options),
    };
    return new WorkerPool<ToWorker, FromWorker>(
      { entry: new URL('./worker.js', import.meta.url), workers, workerData },
      {
        log: this.#log.child({ room: 'workers' }),
        onMessage: (worker, message) => this.#onMessage(worker, message),
        onWorkerRestarted: (worker) => {
          this.#tcpMetrics.workerLost(worker);
          this.#capture.onWorkerDied(worker);
          this.#workers.resend(worker);
        },
      },
    );
  }

  /** Subscribed before the contexts: workers know what is revoked before they can show a certificate. */
  #makeRevocations(): RevocationFile | null {
    const { crl: file } = this.#options;
    if (file === '') return null;
    const log = this.#log.child({ room: 'certificates' });
    const onChange = (revoked: ReadonlySet<string>) => this.#workers.setRevoked(revoked);
    const revocations = new RevocationFile({ file, intervalMs: 1_000 }, { log, nowMs: Date.now, onChange });
    this.#certificates.subscribe(revocations);
    return revocations;
  }

  #makeContexts(): void {
    const contexts = new TlsContexts({}, { engine: new EngineTlsContexts(), clock: systemClock });
    contexts.subscribe({ onContext: (identity, context) => this.#workers.setContext(identity, context) });
    this.#certificates.subscribe(contexts);
  }

  #makeCapture(): Capture {
    const { cgroupRoot, podsCgroup, hostNetns, kubeletCgroup, bpffs } = this.#options;
    const log = this.#log.child({ room: 'capture' });
    return new Capture(
      {
        ...this.#options,
        cgroupRoot: cgroupRoot || null,
        podsParent: podsCgroup || null,
        hostNetns: hostNetns || null,
        kubeletCgroup: kubeletCgroup || null,
        bpffsDir: bpffs,
      },
      { podSource: this.#pods, listener: this, log },
    );
  }

  #applyTrustBundle(roots: readonly Buffer[]): void {
    this.#trustBundlePem = roots.map((root) => derToPem(root, 'CERTIFICATE')).join('');
    this.#certificates.setTrustBundle(roots);
  }

  #makeSuccession(): Succession {
    return new Succession(this.#options, {
      capture: this.#capture,
      workers: this.#workers,
      identities: this.#identities,
      log: this.#log.child({ room: 'handover' }),
      pending: () => [...this.#xds.state.pending, ...this.#pods.pending],
      onSucceeded: () => this.#giveWay(),
    });
  }

  #applyStore(update: StoreUpdate): void {
    this.#store.apply(update);
    this.#workers.applyStore(update);
    this.#identities.refresh();
  }

  #onMessage(worker: number, message: FromWorker): void {
    switch (message.kind) {
      case 'telemetry':
        this.#takeBatch(worker, message.batch);
        return;
      case 'identity-wanted':
        if (this.#identities.has(message.identity)) this.#certificates.require(message.identity);
        return;
      case 'hostname-wanted':
        void this.#hostLookups
          .resolve(message.hostname)
          .then((answer) => this.#pool.post(worker, { kind: 'hostname', answer }));
        return;
      default:
        this.#workers.onMessage(worker, message);
    }
  }

  #takeBatch(worker: number, batch: TelemetryBatch): void {
    this.#accessLog.write(batch.lines);
    const droppedLines = batch.droppedLines + this.#accessLog.droppedLines - this.#droppedLines;
    this.#droppedLines = this.#accessLog.droppedLines;
    this.#tcpMetrics.merge(worker, { ...batch, droppedLines });
    this.#workers.telemetryTaken(worker);
  }

  #pending(): string[] {
    const pending = [...this.#xds.state.pending, ...this.#pods.pending.map((what) => `pods: ${what}`)];
    if (!this.#captureStarted) pending.push(`capture: ${this.#capture.trouble || 'hooks are not in place'}`);
    if (this.#cni?.trouble) pending.push(`cni: ${this.#cni.trouble}`);
    if (this.#draining) pending.push('draining');
    if (this.#uninstall.isMarked) pending.push('released: the mesh is being uninstalled');
    return pending;
  }
}
