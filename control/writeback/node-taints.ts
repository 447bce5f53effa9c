import { type ApiClient, recordOf, statusOf, textOf } from '../../mesh/kube/index.js';
import {
  type Leadership,
  WRITE_QUEUE_DEFAULTS,
  WRITE_TIMEOUT_MS,
  WriteQueue,
} from '../../mesh/kube-write/index.js';
import type { Log } from '../../mesh/log/index.js';
import { keyOf } from '../../mesh/manifests/index.js';
import type { Model, ObjectKey, Pod } from '../model/index.js';
import { AGENT_BOOT_ANNOTATION, type Facts, isOurTaint, recordsOf, TAINT } from './facts.js';
import type { NodeFacts } from './types.js';

export interface NodeTaintsOptions {
  /** False: taints are only taken away, from nodes whose agent is ready. */
  readonly adds: boolean;
}

export interface NodeTaintsDeps {
  readonly client: Pick<ApiClient, 'request'>;
  readonly leadership: Pick<Leadership, 'isLeader'>;
  readonly facts: Facts;
  readonly model: Pick<Model, 'podsOnNode'>;
  readonly isAgent: (pod: Pod) => boolean;
  /** The mesh is being removed: nodes are left as if it had never been there. */
  readonly isUninstalling: () => boolean;
  readonly log: Log;
}

/** A kubelet that comes up says so before it has looked at its pods: for so long after a boot "ready" may be from before it. */
const STALE_MS = 15_000;

/** A boot in which no agent was ready yet. */
interface Boot {
  readonly bootId: string;
  readonly seenMs: number;
  /** The agent was seen not to be ready since: what its pod says is of this boot. */
  isFresh: boolean;
}

type Wanted =
  | { readonly taint: 'keep' }
  | { readonly taint: 'add' }
  /** With the boot to be marked as served; null: no mark. */
  | { readonly taint: 'remove'; readonly agentBootId: string | null };

/**
 * Keeps pods off a node that has no pins: one whose agent was not ready since its last boot. Not off one whose agent is merely gone: its pins hold. Nothing is kept
 * in memory: the boot in which an agent was ready is an annotation of the Node.
 */
export class NodeTaints {
  readonly #options: NodeTaintsOptions;
  readonly #deps: NodeTaintsDeps;
  readonly #queue: WriteQueue;
  readonly #boots: Map<string, Boot>;
  readonly #timers: Set<NodeJS.Timeout>;
  #isOn: boolean;

  constructor(options: NodeTaintsOptions, deps: NodeTaintsDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#queue = new WriteQueue(
      // A node is born and its first pods are bound within a second.
      { ...WRITE_QUEUE_DEFAULTS, quietMs: 10_000, mostMs: 10_000 },
      { write: (key) => this.#write(key), log: deps.log },
    );
    this.#boots = new Map();
    this.#timers = new Set();
    this.#isOn = false;
  }

  get counts(): { readonly written: number; readonly failed: number; readonly waiting: number } {
    return { ...this.#queue.counts, waiting: this.#queue.size };
  }

  start(): void {
    this.#isOn = true;
    this.touchAll();
  }

  stop(): void {
    this.#isOn = false;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#boots.clear();
    this.#queue.clear();
  }

  touchAll(): void {
    for (const key of this.#deps.facts.keys) this.touch(key);
  }

  /** The Node, or the agent on it, has changed. */
  touch(key: ObjectKey): void {
    if (this.#isOn && key.startsWith('Node/')) this.#queue.add(key);
  }

  async #write(key: ObjectKey): Promise<boolean> {
    const { facts, client, leadership, log } = this.#deps;
    const name = key.slice('Node/'.length);
    const node = facts.get(key)?.node ?? null;
    if (node === null) this.#boots.delete(name);
    if (node === null || !leadership.isLeader) return false;
    const wanted = this.#wantedOf(name, node);
    if (isSo(node, wanted)) return false;
    const path = `/api/v1/nodes/${name}`;
    try {
      // Taints are one list of all writers: read, changed, and written only if nobody else has written since.
      const body = patchOf(recordOf(await client.request({ path })) ?? {}, wanted);
      const contentType = 'application/merge-patch+json';
      const signal = AbortSignal.timeout(WRITE_TIMEOUT_MS);
      await client.request({ method: 'PATCH', path, contentType, body, signal });
    } catch (error) {
      if (statusOf(error) === 404) return false;
      throw error;
    }
    log.info({ node: name, taint: wanted.taint }, 'node taint written');
    return true;
  }

  #wantedOf(name: string, node: NodeFacts): Wanted {
    const { bootId, agentBootId } = node;
    const { model, isAgent, isUninstalling } = this.#deps;
    if (isUninstalling()) return { taint: 'remove', agentBootId: null };
    const agents = [...model.podsOnNode(name)].filter(isAgent);
    const { adds } = this.#options;
    const isServed = this.#isServed(
      name,
      node,
      agents.some(({ ready }) => ready),
    );
    if (isServed) return { taint: 'remove', agentBootId: adds ? bootId : null };
    // Without a pod for it, no agent may be meant to run there, ever.
    const isAwaited = adds && agents.length > 0 && agentBootId !== bootId;
    return { taint: isAwaited && this.#hasBegun() ? 'add' : 'keep' };
  }

  /** Whether an agent is ready in this boot. */
  #isServed(name: string, { bootId, agentBootId }: NodeFacts, isReady: boolean): boolean {
    if (agentBootId === '' || agentBootId === bootId) {
      this.#boots.delete(name);
      return isReady;
    }
    const nowMs = performance.now();
    let boot = this.#boots.get(name);
    if (boot?.bootId !== bootId) {
      boot = { bootId, seenMs: nowMs, isFresh: false };
      this.#boots.set(name, boot);
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.touch(keyOf('Node', '', name));
      }, STALE_MS);
      this.#timers.add(timer);
    }
    if (!isReady) boot.isFresh = true;
    return isReady && (boot.isFresh || nowMs - boot.seenMs >= STALE_MS);
  }

  /** An agent has been ready somewhere. Before that, an installation that does not work would close the whole cluster. */
  #hasBegun(): boolean {
    const { facts } = this.#deps;
    for (const key of facts.keys)
      if (key.startsWith('Node/') && (facts.get(key)?.node?.agentBootId ?? '') !== '') return true;
    return false;
  }
}

function isSo(node: NodeFacts, wanted: Wanted): boolean {
  if (wanted.taint === 'keep') return true;
  if (wanted.taint === 'add') return node.isTainted;
  return !node.isTainted && node.agentBootId === (wanted.agentBootId ?? '');
}

function patchOf(node: Record<string, unknown>, wanted: Wanted): object {
  const resourceVersion = textOf(recordOf(node['metadata'])?.['resourceVersion']);
  const others = recordsOf(recordOf(node['spec'])?.['taints']).filter((taint) => !isOurTaint(taint));
  const taints = wanted.taint === 'add' ? [...others, TAINT] : others;
  const annotations =
    wanted.taint === 'remove' ? { annotations: { [AGENT_BOOT_ANNOTATION]: wanted.agentBootId } } : {};
  return {
    metadata: { resourceVersion, ...annotations },
    spec: { taints: taints.length === 0 ? null : taints },
  };
}

/** The Node that a pod is on. */
export function nodeKeyOf({ nodeName }: Pick<Pod, 'nodeName'>): ObjectKey {
  return keyOf('Node', '', nodeName);
}
