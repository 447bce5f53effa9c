import type { ApiClient } from '../../mesh/kube/index.js';
import { EVENT_DEFAULTS, EventRecorder, type Leadership } from '../../mesh/kube-write/index.js';
import type { Log } from '../../mesh/log/index.js';
import type { ManifestProblem, RawObject, SourceBatch } from '../../mesh/manifests/index.js';
import type { Limitation, MeshObject, Model, ObjectKey, Pod } from '../model/index.js';
import { findingsOf } from './checks.js';
import { verdictOf } from './conditions.js';
import { Facts, STATUS_KINDS } from './facts.js';
import { Findings } from './findings.js';
import { NodeTaints, nodeKeyOf } from './node-taints.js';
import { SideSource } from './side-source.js';
import { StatusWriter } from './status-writer.js';
import type { FindingSummary, WritebackCounts } from './types.js';
import { VipAllocator } from './vip-allocator.js';

export interface WritebackOptions {
  /** The controller's own namespace. */
  readonly namespace: string;
  /** Of this replica, in its Events. */
  readonly identity: string;
  readonly addsNodeTaints: boolean;
}

export interface WritebackDeps {
  readonly client: ApiClient;
  readonly leadership: Leadership;
  readonly model: Model;
  /** What of an object is not in force as written, as translated last. */
  readonly limitationsOf: (key: ObjectKey) => readonly Limitation[];
  /** Whether it is a policy whose selector takes no pod at present. */
  readonly isIdle: (key: ObjectKey) => boolean;
  readonly log: Log;
}

export const AGENT_LABEL = { name: 'app.kubernetes.io/name', value: 'culvert-agent' } as const;

/** How often nodes, pods and NetworkPolicies are looked at. */
const SWEEP_MS = 10_000;

/** What the controller writes to the cluster about what it has read of it: statuses, Events, node taints. All replicas look; the leader writes. */
export class Writeback {
  readonly #options: WritebackOptions;
  readonly #deps: WritebackDeps;
  readonly #facts: Facts;
  readonly #side: SideSource;
  readonly #events: EventRecorder;
  readonly #statuses: StatusWriter;
  readonly #taints: NodeTaints;
  readonly #findings: Findings;
  readonly #problems: Map<ObjectKey, readonly ManifestProblem[]>;
  /** The node of each agent's pod. */
  readonly #agentNodes: Map<ObjectKey, ObjectKey>;
  #sweep: NodeJS.Timeout | null;
  #unsubscribe: () => void;

  constructor(options: WritebackOptions, deps: WritebackDeps) {
    const { client, leadership, model, log } = deps;
    this.#options = options;
    this.#deps = deps;
    this.#problems = new Map();
    this.#agentNodes = new Map();
    this.#sweep = null;
    this.#unsubscribe = () => {};
    this.#facts = new Facts({ onChange: (key) => this.#touch(key) });
    this.#events = new EventRecorder(
      { ...EVENT_DEFAULTS, controller: 'culvert.io/controller', instance: options.identity },
      { client, log },
    );
    this.#side = new SideSource(options, {
      client,
      facts: this.#facts,
      onMarker: () => this.#taints.touchAll(),
      log: log.child({ source: 'writeback' }),
    });
    const shared = { client, leadership, facts: this.#facts, model, log };
    this.#statuses = new StatusWriter({
      ...shared,
      vips: new VipAllocator({ model }),
      judge: (key) => ({
        problems: this.#problems.get(key) ?? [],
        limitations: deps.limitationsOf(key),
        isIdle: deps.isIdle(key),
      }),
      events: this.#events,
    });
    this.#taints = new NodeTaints(
      { adds: options.addsNodeTaints },
      { ...shared, isAgent: (pod) => this.#isAgent(pod), isUninstalling: () => this.#side.isUninstalling },
    );
    this.#findings = new Findings({ events: this.#events });
  }

  /** As `KubernetesSourceDeps.observe`. */
  observe(key: ObjectKey, raw: RawObject | null): void {
    this.#facts.observe(key, raw);
  }

  /** As `KubernetesSourceDeps.onProblems`. */
  onProblems(key: ObjectKey, problems: readonly ManifestProblem[]): void {
    if (problems.length === 0) this.#problems.delete(key);
    else this.#problems.set(key, problems);
    this.#touch(key);
  }

  /** After the model has taken the batch. */
  onBatch({ upserted, removed }: SourceBatch<MeshObject>): void {
    for (const [key, object] of upserted)
      if (object.kind === 'Pod' && this.#isAgent(object)) this.#onAgent(key, object);
    for (const key of removed) this.#onAgent(key, null);
  }

  /** What is not in force of these objects has changed. */
  onReports(keys: Iterable<ObjectKey>): void {
    for (const key of keys) {
      this.#touch(key);
      if (this.#deps.leadership.isLeader) this.#tellReport(key);
    }
    this.#statuses.judged();
  }

  /** Whether these policies take any pod has changed. */
  onIdle(keys: Iterable<ObjectKey>): void {
    for (const key of keys) this.#touch(key);
    this.#statuses.judged();
  }

  /** Once everything has been seen. */
  start(): void {
    this.#side.start();
    this.#unsubscribe = this.#deps.leadership.subscribe({
      onLead: () => {
        this.#statuses.start();
        this.#taints.start();
        this.#findings.tells = true;
        for (const key of this.#facts.keys) this.#tellReport(key);
      },
      onFollow: () => {
        this.#statuses.stop();
        this.#taints.stop();
        this.#findings.tells = false;
        this.#events.clear();
      },
    });
    this.#sweep = setInterval(() => this.#look(), SWEEP_MS);
  }

  stop(): void {
    this.#unsubscribe();
    if (this.#sweep !== null) clearInterval(this.#sweep);
    this.#side.stop();
    this.#statuses.stop();
    this.#taints.stop();
    this.#events.stop();
  }

  get findings(): readonly FindingSummary[] {
    return this.#findings.summary(performance.now());
  }

  get counts(): WritebackCounts {
    const [statuses, taints, events] = [this.#statuses.counts, this.#taints.counts, this.#events.counts];
    const findings = new Map<string, number>();
    for (const { reason } of this.findings) findings.set(reason, (findings.get(reason) ?? 0) + 1);
    return {
      isLeader: this.#deps.leadership.isLeader,
      written: statuses.written + taints.written,
      failed: statuses.failed + taints.failed,
      waiting: statuses.waiting + taints.waiting,
      eventsSent: events.sent,
      eventsDropped: events.dropped,
      findings,
    };
  }

  #touch(key: ObjectKey): void {
    this.#statuses.touch(key);
    this.#taints.touch(key);
  }

  #look(): void {
    const { model } = this.#deps;
    const context = {
      model,
      facts: this.#facts,
      isAgent: (pod: Pod) => this.#isAgent(pod),
      networkPolicies: this.#side.networkPolicies,
    };
    this.#findings.update(findingsOf(context), performance.now());
  }

  /** Of kinds whose status is not ours. */
  #tellReport(key: ObjectKey): void {
    if (STATUS_KINDS.has(key.slice(0, key.indexOf('/')))) return;
    const limitations = this.#deps.limitationsOf(key);
    const regarding = this.#facts.get(key)?.object;
    if (limitations.length === 0 || regarding === undefined) return;
    const { message } = verdictOf(regarding.kind, { problems: [], limitations, isIdle: false });
    this.#events.record({
      regarding,
      type: 'Warning',
      reason: 'NotAsWritten',
      action: 'Translate',
      note: message,
    });
  }

  #isAgent({ namespace, labels }: Pod): boolean {
    return namespace === this.#options.namespace && labels[AGENT_LABEL.name] === AGENT_LABEL.value;
  }

  #onAgent(key: ObjectKey, pod: Pod | null): void {
    const before = this.#agentNodes.get(key);
    const now = pod === null || pod.nodeName === '' ? undefined : nodeKeyOf(pod);
    if (now === undefined) this.#agentNodes.delete(key);
    else this.#agentNodes.set(key, now);
    for (const node of new Set([before, now])) if (node !== undefined) this.#taints.touch(node);
  }
}
