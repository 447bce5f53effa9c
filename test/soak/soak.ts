import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { packageRoot } from '../../native/package-root.js';
import {
  Lab,
  type LabNode,
  type LabPod,
  type LabProcess,
  type Mesh,
  type MeshAgent,
  startMesh,
} from '../lab/index.js';
import { randomFrom } from '../support/random.js';
import type { SoakCounts, SoakFailure, SoakTarget } from '../support/soak-client.js';
import { Actions } from './actions.js';
import { Disturbances } from './disturbances.js';
import { type Footprint, footprintOf, growthOf, residentMb } from './footprint.js';

export interface SoakOptions {
  readonly minutes: number;
  /** The same seed does the same things in the same order. */
  readonly seed: number;
}

export interface SoakResult {
  readonly connections: Readonly<Record<string, number>>;
  readonly failures: number;
  /** Failures by what explains them. */
  readonly explained: Readonly<Record<string, number>>;
  readonly unexplained: readonly string[];
  readonly actions: Readonly<Record<string, number>>;
  /** Before and after, of the programs that lived through it. */
  readonly footprints: readonly { readonly before: Footprint; readonly after: Footprint }[];
  /** What grew more than it may. */
  readonly grown: readonly string[];
}

const support = (name: string) => ['node', join(packageRoot(), 'dist/test/support', `${name}.js`)];
const appPort = 9000;
/** Everything is quiet this long before it is measured. */
const quietMs = 6_000;
const workers = 2;

/** A client's load and where it runs. */
interface Load {
  readonly place: string;
  readonly process: LabProcess;
}

/**
 * Connections of all kinds between pods of three nodes while everything is done to the mesh that happens to one; ends with what failed, what
 * explains it, and what the programs hold. Agents of nodes a and b are never ended, so that they show what they keep; node c's is.
 */
export class Soak {
  readonly #options: SoakOptions;
  readonly #say: (line: string) => void;
  readonly #lab: Lab;
  readonly #nodes: readonly LabNode[];
  readonly #mesh: Mesh;
  readonly #disturbances = new Disturbances();
  /** Where each target is, by its name. */
  readonly #places = new Map<string, string[]>();
  readonly #targets: SoakTarget[] = [];
  readonly #loads: Load[] = [];
  readonly #failures: { readonly place: string; readonly failure: SoakFailure }[] = [];
  readonly #counts: Record<string, number> = {};
  #nextSeed: number;

  private constructor(
    options: SoakOptions,
    deps: { lab: Lab; nodes: readonly LabNode[]; mesh: Mesh; say: (line: string) => void },
  ) {
    this.#options = options;
    this.#say = deps.say;
    this.#lab = deps.lab;
    this.#nodes = deps.nodes;
    this.#mesh = deps.mesh;
    this.#nextSeed = options.seed;
  }

  static async run(options: SoakOptions, say: (line: string) => void): Promise<SoakResult> {
    using lab = await Lab.create();
    lab.namespace('soak', { labels: { 'istio.io/dataplane-mode': 'ambient' } });
    const nodes = [await lab.node('a'), await lab.node('b'), await lab.node('c')];
    const mesh = await startMesh(lab, { nodes, workers, agentFlags: ['--drain', '15s'] });
    const soak = new Soak(options, { lab, nodes, mesh, say });
    return await soak.#run();
  }

  async #run(): Promise<SoakResult> {
    const servers = await Promise.all(this.#nodes.map((node) => this.#server(node)));
    await this.#mesh.waitUntilCaptured(servers);
    const clients = await Promise.all(this.#nodes.map((node) => this.pod(node, 'client')));
    await this.#mesh.waitUntilCaptured(clients);
    await this.#warmUp(clients);
    const before = await this.#footprints();
    const actions = await this.#disturb(clients);
    const after = await this.#footprints();
    return this.#result(actions, before, after);
  }

  /** The same load, undisturbed: code is compiled and pools are filled before anything is measured. */
  async #warmUp(clients: readonly LabPod[]): Promise<void> {
    const ms = Math.min(60_000, this.#options.minutes * 60_000 * 0.25);
    this.#say(`load for ${Math.round(ms / 1000)} s, then quiet: what the programs hold before`);
    for (const client of clients) this.load(client, 6);
    await delay(ms);
    await this.stopLoads();
  }

  async #disturb(clients: readonly LabPod[]): Promise<Actions> {
    const { minutes, seed } = this.#options;
    const endMs = Date.now() + minutes * 60_000;
    this.#say(`${minutes} minutes of load and disturbances, seed ${seed}`);
    for (const client of clients) this.load(client, 6);
    const actions = new Actions({
      random: randomFrom(seed),
      lab: this.#lab,
      mesh: this.#mesh,
      nodes: this.#nodes,
      disturbances: this.#disturbances,
      soak: this,
      say: this.#say,
    });
    let sampleMs = Date.now();
    while (Date.now() < endMs) {
      await actions.next();
      if (Date.now() < sampleMs) continue;
      sampleMs += 60_000;
      this.#say(
        `  [${this.#lasting()
          .map((agent) => `${agent.node.name} ${residentMb(agent.process.pid)} MB`)
          .join(', ')}]`,
      );
    }
    await actions.settle();
    await this.stopLoads();
    return actions;
  }

  /** A pod in the mesh that others may talk to, by its address and by the Service of all servers. */
  async #server(node: LabNode): Promise<LabPod> {
    const pod = await this.pod(node, 'server', { app: 'soak' });
    const app = pod.spawn([...support('tcp-app'), String(appPort), '::']);
    await app.waitForOutput(/listening/);
    const place = `${node.name}/${pod.name}`;
    this.#places.set(place, [place]);
    this.#targets.push({ name: place, host: pod.ip, port: appPort });
    if (this.#targets.length === this.#nodes.length) {
      const [vip] = this.#lab.service({
        name: 'soak',
        namespace: 'soak',
        selector: { app: 'soak' },
        ports: [{ port: 80, targetPort: appPort }],
      });
      this.#places.set('vip', [...this.#places.keys()]);
      this.#targets.push({ name: 'vip', host: vip!, port: 80 });
    }
    return pod;
  }

  /** A pod in the mesh; `role` is its service account. */
  async pod(node: LabNode, role: string, labels: Readonly<Record<string, string>> = {}): Promise<LabPod> {
    const name = `${role}-${this.#nextSeed++}`;
    return await node.pod(name, { namespace: 'soak', serviceAccount: role, labels });
  }

  /** Starts load from a pod to all targets. */
  load(pod: LabPod, concurrency: number): void {
    const options = { seed: this.#nextSeed++, concurrency, targets: this.#targets };
    const process = pod.spawn([...support('soak-client'), JSON.stringify(options)]);
    const place = `${pod.node.name}/${pod.name}`;
    this.#loads.push({ place, process });
  }

  /** Ends the load of one pod, or of all, and takes what it has to say. */
  async stopLoads(pod?: LabPod): Promise<void> {
    const place = pod && `${pod.node.name}/${pod.name}`;
    const ending = this.#loads.filter((load) => place === undefined || load.place === place);
    for (const { process } of ending) process.write('stop\n');
    for (const load of ending) {
      this.#loads.splice(this.#loads.indexOf(load), 1);
      const { stdout } = await load.process.ended;
      for (const line of stdout.split('\n'))
        if (line.startsWith('{')) this.#take(load.place, JSON.parse(line));
    }
  }

  #take(place: string, line: SoakFailure | SoakCounts): void {
    if ('failure' in line) this.#failures.push({ place, failure: line });
    else
      for (const [kind, count] of Object.entries(line.done))
        this.#counts[kind] = (this.#counts[kind] ?? 0) + count;
  }

  /** What controller and agents hold when nothing has happened for a while; node c's agent is another one each time. */
  async #footprints(): Promise<Footprint[]> {
    await delay(quietMs);
    return await Promise.all([
      footprintOf({ program: 'controller', pid: this.#mesh.controller.pid, threads: 1, mapEntries: 0 }),
      ...this.#lasting().map(async (agent) => {
        const { maps } = (await agent.config()).capture;
        return footprintOf({
          program: `agent of ${agent.node.name}`,
          pid: agent.process.pid,
          threads: 1 + workers,
          mapEntries: maps.reduce((sum, map) => sum + map.entries, 0),
        });
      }),
    ]);
  }

  #lasting(): readonly MeshAgent[] {
    return this.#mesh.agents.filter(({ node }) => node.name !== 'c');
  }

  #result(actions: Actions, before: readonly Footprint[], after: readonly Footprint[]): SoakResult {
    const explained: Record<string, number> = {};
    const unexplained: string[] = [];
    for (const { place, failure } of this.#failures) {
      const places = [place, ...this.#places.get(failure.target)!];
      const why = this.#disturbances.explain(places, failure.fromMs, failure.toMs);
      if (why !== null) explained[why.what] = (explained[why.what] ?? 0) + 1;
      else
        unexplained.push(
          `${new Date(failure.fromMs).toISOString()} ${place} → ${failure.target} ${failure.kind}: ${failure.failure}`,
        );
    }
    const footprints = before.flatMap((one) => {
      const same = after.find(({ program, pid }) => program === one.program && pid === one.pid);
      return same === undefined ? [] : [{ before: one, after: same }];
    });
    return {
      connections: this.#counts,
      failures: this.#failures.length,
      explained,
      unexplained,
      actions: actions.counts,
      footprints,
      grown: footprints.flatMap(({ before, after }) => growthOf(before, after)),
    };
  }
}
