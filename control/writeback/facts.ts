import { recordOf, textOf } from '../../mesh/kube/index.js';
import type { RawObject } from '../../mesh/manifests/index.js';
import type { ObjectKey } from '../model/index.js';
import type { Condition, NodeFacts, ObjectFacts, StatusAddress } from './types.js';

/** Value of a Node's annotation: the boot in which an agent was ready. */
export const AGENT_BOOT_ANNOTATION = 'culvert.io/agent-ready-boot';
export const TAINT = { key: 'culvert/agent-not-ready', effect: 'NoSchedule' } as const;

/** Kinds whose status is ours to write in. */
export const STATUS_KINDS: ReadonlySet<string> = new Set([
  'AuthorizationPolicy',
  'PeerAuthentication',
  'ServiceEntry',
  'WorkloadEntry',
  'DestinationRule',
  'Sidecar',
  'Telemetry',
]);
/** Of these only the uid is kept, for events. */
const NAMED_KINDS: ReadonlySet<string> = new Set(['Node', 'Service', 'NetworkPolicy']);

/** What the API server has of the objects that are written, beside the model: none of it means anything to the mesh. */
export class Facts {
  readonly #facts: Map<ObjectKey, ObjectFacts>;
  readonly #onChange: (key: ObjectKey) => void;

  constructor(deps: { readonly onChange: (key: ObjectKey) => void }) {
    this.#facts = new Map();
    this.#onChange = deps.onChange;
  }

  get(key: ObjectKey): ObjectFacts | undefined {
    return this.#facts.get(key);
  }

  get keys(): Iterable<ObjectKey> {
    return this.#facts.keys();
  }

  /** As `KubernetesSourceDeps.observe`. */
  observe(key: ObjectKey, raw: RawObject | null): void {
    if (raw === null) {
      if (this.#facts.delete(key)) this.#onChange(key);
      return;
    }
    if (!STATUS_KINDS.has(raw.kind) && !NAMED_KINDS.has(raw.kind)) return;
    const before = this.#facts.get(key);
    const now = factsOf(raw);
    // Behind what a write of ours was answered with.
    const isOld =
      before?.object.uid === now.object.uid && isOlder(now.resourceVersion, before.resourceVersion);
    this.#facts.set(key, isOld ? { ...before, generation: now.generation } : now);
    this.#onChange(key);
  }

  /** Of an object that the API server answered with. */
  read(key: ObjectKey, answer: Record<string, unknown>): ObjectFacts {
    const kind = key.slice(0, key.indexOf('/'));
    return factsOf({ apiVersion: '', kind, metadata: { name: '' }, ...answer });
  }

  /** What a write was answered with. Its generation is not taken: that one the model may not have seen. */
  answered(key: ObjectKey, answer: Record<string, unknown>): void {
    const before = this.#facts.get(key);
    if (before === undefined) return;
    const { resourceVersion, conditions, addresses } = this.read(key, answer);
    if (!isOlder(resourceVersion, before.resourceVersion))
      this.#facts.set(key, { ...before, resourceVersion, conditions, addresses });
  }
}

function factsOf(raw: RawObject): ObjectFacts {
  const { apiVersion, kind, metadata } = raw;
  const status = STATUS_KINDS.has(kind) ? (recordOf(raw['status']) ?? {}) : {};
  return {
    object: {
      apiVersion,
      kind,
      namespace: textOf(metadata['namespace']),
      name: metadata.name,
      uid: textOf(metadata['uid']),
    },
    resourceVersion: textOf(metadata['resourceVersion']),
    generation: Number(metadata['generation'] ?? 0),
    conditions: recordsOf(status['conditions']).map(conditionOf),
    addresses: recordsOf(status['addresses']).map(addressOf),
    node: kind === 'Node' ? nodeFactsOf(raw) : null,
  };
}

function conditionOf(record: Record<string, unknown>): Condition {
  const status = textOf(record['status']);
  return {
    type: textOf(record['type']),
    status: status === 'True' || status === 'False' ? status : 'Unknown',
    reason: textOf(record['reason']),
    message: textOf(record['message']),
    // Istio's kinds have it as a number or as a text.
    observedGeneration: Number(record['observedGeneration'] ?? 0),
    lastTransitionTime: textOf(record['lastTransitionTime']),
  };
}

function addressOf(record: Record<string, unknown>): StatusAddress {
  return { host: textOf(record['host']), value: textOf(record['value']) };
}

function nodeFactsOf(raw: RawObject): NodeFacts {
  const annotations = recordOf(raw.metadata['annotations']) ?? {};
  const info = recordOf(recordOf(raw['status'])?.['nodeInfo']) ?? {};
  const taints = recordsOf(recordOf(raw['spec'])?.['taints']);
  return {
    bootId: textOf(info['bootID']) || 'unknown',
    agentBootId: textOf(annotations[AGENT_BOOT_ANNOTATION]),
    isTainted: taints.some(isOurTaint),
  };
}

export function isOurTaint(taint: Record<string, unknown>): boolean {
  return taint['key'] === TAINT.key && taint['effect'] === TAINT.effect;
}

export function recordsOf(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.map(recordOf).filter((one) => one !== undefined) : [];
}

/** resourceVersions are numbers of one sequence (Kubernetes 1.35 says so; etcd's were before). */
function isOlder(version: string, than: string): boolean {
  return /^\d+$/.test(version) && /^\d+$/.test(than) && BigInt(version) < BigInt(than);
}
