import type { SocketAddress } from '../../mesh/common/address.js';
import { AdminClient } from '../admin-client.js';
import { CliError } from '../errors.js';
import type { Forward, Kubectl } from './kubectl.js';

/** agent/options.ts, --admin-listen; control/options.ts. */
const ports = { agent: 15000, controller: 15016 } as const;

export type Program = keyof typeof ports;

/** A pod of the mesh's own. */
export interface MeshPod {
  readonly name: string;
  readonly node: string;
  readonly isReady: boolean;
  /** It is being deleted: an agent that drains. */
  readonly isEnding: boolean;
  readonly phase: string;
  readonly restarts: number;
  readonly createdMs: number;
}

interface PodObject {
  readonly metadata: {
    readonly name: string;
    readonly creationTimestamp: string;
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly nodeName?: string };
  readonly status: {
    readonly phase?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    readonly containerStatuses?: readonly { readonly restartCount: number }[];
  };
}

/**
 * The mesh of a cluster, from wherever kubectl works: agents and controllers are found by their labels, and asked through `kubectl port-forward`
 * (docs/decisions/culvertctl-kubernetes.md).
 */
export class Cluster {
  readonly #namespace: string;
  readonly #kubectl: Kubectl;
  readonly #pods = new Map<Program, Promise<readonly MeshPod[]>>();

  constructor(options: { readonly namespace: string }, deps: { readonly kubectl: Kubectl }) {
    this.#namespace = options.namespace;
    this.#kubectl = deps.kubectl;
  }

  get namespace(): string {
    return this.#namespace;
  }

  get kubectl(): Kubectl {
    return this.#kubectl;
  }

  /** By node and name. */
  pods(program: Program): Promise<readonly MeshPod[]> {
    const known = this.#pods.get(program);
    if (known !== undefined) return known;
    const found = this.#find(program);
    this.#pods.set(program, found);
    return found;
  }

  /** Asks a pod at its admin port, which is forwarded for as long as that takes. */
  async ask<Answer>(
    program: Program,
    pod: MeshPod,
    question: (admin: AdminClient) => Promise<Answer>,
  ): Promise<Answer> {
    const { at, end } = await this.#forward(program, pod.name);
    try {
      return await question(new AdminClient({ program, at: async () => at }));
    } finally {
      end();
    }
  }

  /** The agent that `where` means: a node, an agent's pod, or any pod as NAMESPACE/NAME. Empty: the only one, or, with `isAny`, whichever is ready. */
  agent(where: string, isAny: boolean): AdminClient {
    return this.#client('agent', async () => (await this.#agentAt(where, isAny)).name);
  }

  /** A controller that is ready. */
  controller(): AdminClient {
    return this.#client('controller', async () => {
      const [best] = await this.#preferred('controller');
      if (best !== undefined) return best.name;
      throw this.#none('controller');
    });
  }

  close(): void {
    this.#kubectl.close();
  }

  #client(program: Program, nameOf: () => Promise<string>): AdminClient {
    let at: Promise<SocketAddress> | null = null;
    return new AdminClient({
      program,
      at: () => {
        at ??= nameOf().then(async (name) => (await this.#forward(program, name)).at);
        return at;
      },
    });
  }

  #forward(program: Program, name: string): Promise<Forward> {
    return this.#kubectl.forward({ namespace: this.#namespace, name, port: ports[program] });
  }

  async #agentAt(where: string, isAny: boolean): Promise<MeshPod> {
    const agents = await this.#preferred('agent');
    if (agents.length === 0) throw this.#none('agent');
    const nodes = [...new Set(agents.map(({ node }) => node))].toSorted();
    if (where === '') {
      if (isAny || nodes.length === 1) return agents[0]!;
      const [some, more] = [nodes.slice(0, 20).join(', '), nodes.length > 20 ? ', …' : ''];
      throw new CliError('NOT_FOUND', `which node's agent is to be asked? --node says: ${some}${more}`, {});
    }
    const node = where.includes('/') ? await this.#nodeOf(where) : where;
    const found = agents.find((pod) => pod.node === node || pod.name === where);
    if (found !== undefined) return found;
    throw new CliError('NOT_FOUND', `no agent on a node, nor an agent's pod, ${node} in ${this.#namespace}`, {
      node,
    });
  }

  async #nodeOf(pod: string): Promise<string> {
    const [namespace, name] = pod.split('/') as [string, string];
    const { spec } = await this.#kubectl.json<PodObject>('get', 'pod', '-n', namespace, name);
    if (spec.nodeName !== undefined) return spec.nodeName;
    throw new CliError('NOT_FOUND', `pod ${pod} is on no node yet`, { pod });
  }

  /** Ready before others, and new ones before those that drain. */
  async #preferred(program: Program): Promise<readonly MeshPod[]> {
    const rank = (pod: MeshPod) => (pod.isReady ? 0 : 2) + (pod.isEnding ? 1 : 0);
    return (await this.pods(program)).toSorted((a, b) => rank(a) - rank(b) || b.createdMs - a.createdMs);
  }

  async #find(program: Program): Promise<readonly MeshPod[]> {
    const label = `app.kubernetes.io/name=culvert-${program}`;
    const { items } = await this.#kubectl.json<{ items: readonly PodObject[] }>(
      ...['get', 'pods', '-n', this.#namespace, '-l', label],
    );
    return items
      .map(meshPodOf)
      .toSorted((a, b) => a.node.localeCompare(b.node) || a.name.localeCompare(b.name));
  }

  #none(program: Program): CliError {
    return new CliError(
      'NOT_FOUND',
      `no pod of a ${program} in namespace ${this.#namespace} (--mesh-namespace for another)`,
      { namespace: this.#namespace },
    );
  }
}

function meshPodOf({ metadata, spec, status }: PodObject): MeshPod {
  return {
    name: metadata.name,
    node: spec.nodeName ?? '',
    isReady: (status.conditions ?? []).some((one) => one.type === 'Ready' && one.status === 'True'),
    isEnding: metadata.deletionTimestamp !== undefined,
    phase: status.phase ?? 'Unknown',
    restarts: (status.containerStatuses ?? []).reduce((sum, one) => sum + one.restartCount, 0),
    createdMs: Date.parse(metadata.creationTimestamp),
  };
}
