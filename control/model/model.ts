import { isDeepStrictEqual } from 'node:util';
import { keyOf, type SourceBatch } from '../../mesh/manifests/index.js';
import { gapOf } from './policies/gaps.js';
import { PolicyRelations } from './policies/policy-relations.js';
import type { AuthorizationPolicy, PeerAuthentication } from './policies/types.js';
import { Relations, type RelationsOptions } from './relations.js';
import type {
  AccessLogRules,
  DestinationRule,
  EndpointSlice,
  ServiceEntry,
  Sidecar,
  Telemetry,
  WorkloadEntry,
} from './service-types.js';
import { type ModelChange, Touched } from './touched.js';
import type { MeshObject, Namespace, Node, ObjectKey, Pod, Service } from './types.js';

export interface ModelOptions extends RelationsOptions {
  /** A change is handed on when nothing has changed for this long ... */
  readonly debounceMs: number;
  /** ... but at the latest this long after the first. */
  readonly debounceMaxMs: number;
  /** ... and never sooner than this after the one before: where changes come in streams, agents are told of many at once. */
  readonly intervalMs: number;
}

export const MODEL_DEFAULTS: ModelOptions = {
  debounceMs: 10,
  debounceMaxMs: 100,
  intervalMs: 0,
  rootNamespace: 'istio-system',
  clusterDomain: 'cluster.local',
};

export interface ModelDeps {
  readonly onChange: (change: ModelChange) => void;
}

/** All objects of all sources, indexed, and which resources each change touches. Values equal to what was there are dropped. */
export class Model {
  readonly options: ModelOptions;
  readonly relations: Relations;
  readonly policies: PolicyRelations;
  readonly #onChange: (change: ModelChange) => void;
  readonly #objects: Map<ObjectKey, MeshObject>;
  #touched: Touched;
  #timer: NodeJS.Timeout | null;
  #firstChangeMs: number;
  #handedOnMs = Number.NEGATIVE_INFINITY;

  constructor(options: ModelOptions, deps: ModelDeps) {
    this.options = options;
    this.relations = new Relations(options);
    this.policies = new PolicyRelations(options, this.relations);
    this.#onChange = deps.onChange;
    this.#objects = new Map();
    this.#touched = new Touched();
    this.#timer = null;
    this.#firstChangeMs = 0;
  }

  /** Takes a batch of a source in one step; `onChange` follows, debounced. */
  apply(batch: SourceBatch<MeshObject>): void {
    for (const key of batch.removed) this.#replace(key, undefined);
    for (const [key, object] of batch.upserted) this.#replace(key, object);
    if (!this.#touched.isEmpty) this.#schedule();
  }

  /** Hands on what is pending now. */
  flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#touched.isEmpty) return;
    const change = this.#touched;
    this.#touched = new Touched();
    this.#onChange(change);
    this.#handedOnMs = performance.now();
  }

  /** False: there are changes that have not been handed on. */
  get isSettled(): boolean {
    return this.#touched.isEmpty;
  }

  /** Drops what is pending. */
  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  pod(key: ObjectKey): Pod | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'Pod' ? object : undefined;
  }

  service(key: ObjectKey): Service | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'Service' ? object : undefined;
  }

  serviceEntry(key: ObjectKey): ServiceEntry | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'ServiceEntry' ? object : undefined;
  }

  workloadEntry(key: ObjectKey): WorkloadEntry | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'WorkloadEntry' ? object : undefined;
  }

  endpointSlice(key: ObjectKey): EndpointSlice | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'EndpointSlice' ? object : undefined;
  }

  destinationRule(key: ObjectKey): DestinationRule | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'DestinationRule' ? object : undefined;
  }

  telemetry(key: ObjectKey): Telemetry | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'Telemetry' ? object : undefined;
  }

  sidecar(key: ObjectKey): Sidecar | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'Sidecar' ? object : undefined;
  }

  namespace(name: string): Namespace | undefined {
    const object = this.#objects.get(keyOf('Namespace', '', name));
    return object?.kind === 'Namespace' ? object : undefined;
  }

  node(name: string): Node | undefined {
    const object = this.#objects.get(keyOf('Node', '', name));
    return object?.kind === 'Node' ? object : undefined;
  }

  authorizationPolicy(key: ObjectKey): AuthorizationPolicy | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'AuthorizationPolicy' ? object : undefined;
  }

  peerAuthentication(key: ObjectKey): PeerAuthentication | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'PeerAuthentication' ? object : undefined;
  }

  podsOnNode(nodeName: string): ReadonlySet<Pod> {
    return this.relations.podsOnNode(nodeName);
  }

  /** The Service that has this hostname. */
  serviceOfHost(host: string): Service | undefined {
    const name = this.relations.serviceNameOf(host);
    return name === null ? undefined : this.service(keyOf('Service', name.namespace, name.name));
  }

  /** Whether the host of the entry is its own: within a namespace a Service has it before any entry, and the oldest entry before others. */
  ownsHost(entry: ServiceEntry, host: string): boolean {
    if (this.serviceOfHost(host)?.namespace === entry.namespace) return false;
    return (
      this.relations.entriesOfHost(host).find(({ namespace }) => namespace === entry.namespace) === entry
    );
  }

  /** Whether the entry is what the whole mesh means by the host: no older entry has it, and it is no name of a Service, were there one. */
  isCanonical(entry: ServiceEntry, host: string): boolean {
    return this.relations.serviceNameOf(host) === null && this.relations.entriesOfHost(host)[0] === entry;
  }

  /** The rule in force for clients of a service: of its namespace before the root's, the exact host before the longest wildcard, the oldest. */
  ruleFor(namespace: string, host: string): DestinationRule | undefined {
    const { rootNamespace } = this.options;
    const namespaces = namespace === rootNamespace ? [namespace] : [namespace, rootNamespace];
    for (const where of namespaces)
      for (const pattern of patternsOf(host)) {
        const rule = this.relations
          .rulesOf(where, pattern)
          .find((one) => where === namespace || !one.isPrivate);
        if (rule !== undefined) return rule;
      }
    return undefined;
  }

  /** What clients of the namespace may reach outside the mesh, by its Sidecar or else the root namespace's; null: none says. */
  outboundOf(namespace: string): 'allow-any' | 'registry-only' | null {
    for (const where of [namespace, this.options.rootNamespace]) {
      const outbound = this.relations.sidecarsOf(where)[0]?.outbound ?? null;
      if (outbound !== null) return outbound;
    }
    return null;
  }

  /** What agents write of connections of the namespace, by its Telemetry or else the root namespace's; null: none says. */
  accessLogOf(namespace: string): AccessLogRules | null {
    for (const where of [namespace, this.options.rootNamespace]) {
      const rules = this.relations.telemetriesOf(where)[0]?.accessLog ?? null;
      if (rules !== null) return rules;
    }
    return null;
  }

  #replace(key: ObjectKey, object: MeshObject | undefined): void {
    const before = this.#objects.get(key);
    if (isDeepStrictEqual(before, object)) return;
    const wasWhere = this.#gapText(before);
    if (before !== undefined) {
      this.relations.touch(before, this.#touched);
      this.policies.touch(before, object, this.#touched);
      this.relations.delete(before);
      this.policies.delete(before);
      this.#objects.delete(key);
    }
    if (object !== undefined) {
      this.#objects.set(key, object);
      this.relations.add(object);
      this.policies.add(object);
      this.relations.touch(object, this.#touched);
      this.policies.touch(object, before, this.#touched);
    }
    this.#touchGaps(before, object, wasWhere);
  }

  /** Policies say which of the pods that they take are out of their reach. */
  #touchGaps(before: MeshObject | undefined, object: MeshObject | undefined, wasWhere: string): void {
    if (before?.kind === 'Namespace' || object?.kind === 'Namespace') {
      if (isDeepStrictEqual(labelsOf(before), labelsOf(object))) return;
      for (const one of this.relations.ofNamespace((object ?? before)!.name))
        if (one.kind === 'Pod') this.policies.touchTaking(one, this.#touched);
      return;
    }
    const isWhere = this.#gapText(object);
    if (wasWhere === isWhere && (isWhere === '' || isDeepStrictEqual(labelsOf(before), labelsOf(object))))
      return;
    if (before?.kind === 'Pod') this.policies.touchTaking(before, this.#touched);
    if (object?.kind === 'Pod') this.policies.touchTaking(object, this.#touched);
  }

  /** Of a pod; empty: policies are enforced there, or it is none. */
  #gapText(object: MeshObject | undefined): string {
    if (object?.kind !== 'Pod') return '';
    const gap = gapOf(object, this.namespace(object.namespace));
    return gap === null ? '' : JSON.stringify(gap);
  }

  #schedule(): void {
    const now = performance.now();
    if (this.#timer === null) this.#firstChangeMs = now;
    else clearTimeout(this.#timer);
    const { debounceMs, debounceMaxMs, intervalMs } = this.options;
    const latest = this.#firstChangeMs + debounceMaxMs - now;
    const earliest = this.#handedOnMs + intervalMs - now;
    this.#timer = setTimeout(() => this.flush(), Math.max(0, earliest, Math.min(debounceMs, latest)));
  }
}

function labelsOf(object: MeshObject | undefined): unknown {
  return object !== undefined && 'labels' in object ? object.labels : undefined;
}

/** The host itself, then `*.b.c`, `*.c`, `*`. */
function patternsOf(host: string): readonly string[] {
  const labels = host.split('.');
  const wildcards = labels.slice(1).map((_label, index) => `*.${labels.slice(index + 1).join('.')}`);
  return [host, ...wildcards, '*'];
}
