import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Lab, LabNode, LabPod, Mesh, MeshAgent } from '../lab/index.js';
import type { Disturbances } from './disturbances.js';
import type { Soak } from './soak.js';

export interface ActionsDeps {
  readonly random: () => number;
  readonly lab: Lab;
  readonly mesh: Mesh;
  readonly nodes: readonly LabNode[];
  readonly disturbances: Disturbances;
  readonly soak: Soak;
  readonly say: (line: string) => void;
}

/** What a reset connection, a new pool and a client's pause make of an end: so long after it, failures are its own. */
const settleMs = 3_000;
const maxGuests = 3;

/** What happens to a mesh: one thing after the other, chosen by the seed. */
export class Actions {
  readonly counts: Record<string, number> = {};
  readonly #deps: ActionsDeps;
  readonly #guests: LabPod[] = [];
  #denied = false;
  #agentOfC: MeshAgent;

  constructor(deps: ActionsDeps) {
    this.#deps = deps;
    this.#agentOfC = deps.mesh.agents.find(({ node }) => node.name === 'c')!;
  }

  /** Does one thing and waits a little. */
  async next(): Promise<void> {
    const { random, say } = this.#deps;
    const all: readonly (readonly [string, number, () => Promise<void>])[] = [
      ['a pod is born and has load', 4, () => this.#birth()],
      ['a pod is deleted', 3, () => this.#death()],
      ['a policy that denies a stranger comes or goes', 4, () => this.#policy()],
      ['a broken manifest comes and goes', 2, () => this.#garbage()],
      ['a Service changes', 2, () => this.#service()],
      ['the controller is killed and started', 2, () => this.#controller()],
      ['the agent of c is ended by SIGTERM and started', 2, () => this.#agent('SIGTERM')],
      ['the agent of c is killed and started', 2, () => this.#agent('SIGKILL')],
      ['another agent takes over on c', 3, () => this.#takeover()],
      ['a worker of c is ended', 2, () => this.#worker()],
    ];
    let at = random() * all.reduce((sum, [, weight]) => sum + weight, 0);
    const [what, , act] = all.find(([, weight]) => {
      at -= weight;
      return at < 0;
    })!;
    say(`  ${what}`);
    this.counts[what] = (this.counts[what] ?? 0) + 1;
    await act();
    await delay(500 + random() * 2_000);
  }

  /** Takes back what is still different from the beginning. */
  async settle(): Promise<void> {
    while (this.#guests.length > 0) await this.#death();
    if (this.#denied) await this.#policy();
  }

  /** A client from its first instruction on: what it tries before it is captured is held or refused. */
  async #birth(): Promise<void> {
    if (this.#guests.length >= maxGuests) return await this.#death();
    const { soak, nodes, mesh, random } = this.#deps;
    const pod = await soak.pod(nodes[Math.floor(random() * nodes.length)]!, 'guest');
    await mesh.waitUntilCaptured([pod]);
    soak.load(pod, 3);
    this.#guests.push(pod);
  }

  async #death(): Promise<void> {
    const pod = this.#guests.shift();
    if (pod === undefined) return await this.#birth();
    await this.#deps.soak.stopLoads(pod);
    await pod.delete();
  }

  /** Denies an account that nobody here has: evaluated for every connection, and no reason to fail. */
  async #policy(): Promise<void> {
    const { manifests } = this.#deps.lab;
    this.#denied = !this.#denied;
    if (!this.#denied) {
      manifests.delete('AuthorizationPolicy', 'no-strangers', 'soak');
      return;
    }
    manifests.apply({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'no-strangers', namespace: 'soak' },
      spec: {
        action: 'DENY',
        rules: [{ from: [{ source: { principals: ['cluster.local/ns/soak/sa/stranger'] } }] }],
      },
    });
  }

  async #garbage(): Promise<void> {
    const file = join(this.#deps.lab.manifests.path, 'broken.yaml');
    writeFileSync(file, 'apiVersion: v1\nkind: Pod\nmetadata: {name: [no, name]}\n---\n: : {\n');
    await delay(500);
    rmSync(file);
  }

  async #service(): Promise<void> {
    this.#deps.lab.service({
      name: 'other',
      namespace: 'soak',
      selector: { app: 'soak' },
      ports: [{ port: 1 + Math.floor(this.#deps.random() * 60_000), targetPort: 9000 }],
      clusterIPs: ['10.96.200.200'],
    });
  }

  /** Nothing may fail for it. */
  async #controller(): Promise<void> {
    const { mesh } = this.#deps;
    await mesh.controller.stop('SIGKILL');
    await delay(1_000);
    await mesh.restartController();
  }

  async #agent(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const { disturbances } = this.#deps;
    const agent = this.#agentOfC;
    const disturbance = disturbances.begin(`agent of c: ${signal}`, agent.node);
    await agent.process.stop(signal);
    await agent.restart();
    await this.#deps.mesh.waitUntilCaptured([...agent.node.pods.values()].filter((pod) => !pod.hostNetwork));
    disturbances.end(disturbance, settleMs);
  }

  /** Nothing may fail for it, neither now nor while the old one drains. */
  async #takeover(): Promise<void> {
    const old = this.#agentOfC;
    this.#agentOfC = await old.startSuccessor();
    await this.#agentOfC.waitUntilServing();
    await old.process.ended;
    await old.pod.delete();
  }

  async #worker(): Promise<void> {
    const { disturbances } = this.#deps;
    const agent = this.#agentOfC;
    const disturbance = disturbances.begin('worker of c ended', agent.node);
    await agent.admin('/workers/restart?worker=0', 'POST');
    disturbances.end(disturbance, settleMs);
  }
}
