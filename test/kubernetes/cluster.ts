import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { killCgroup } from '../lab/cgroup.js';
import { Lab, type LabNode, type LabProcess, type NodeOptions, waitFor } from '../lab/index.js';
import type { KubeObject } from './api.js';
import { ControlPlane, type ControlPlaneOptions } from './control-plane.js';
import { defaultImages } from './images.js';
import type { ImageTable, KubeletConfig } from './kubelet/types.js';

export interface ClusterOptions extends ControlPlaneOptions {
  /** Names of the nodes; `a` and `b` by default. */
  readonly nodes?: readonly string[];
  /** Further images, over those of `defaultImages`. */
  readonly images?: ImageTable;
}

export interface ClusterNodeOptions extends NodeOptions {
  readonly labels?: Readonly<Record<string, string>>;
  /** The address of a pod that went is given to the very next one. */
  readonly reuseAddresses?: boolean;
  /** The clock of kubelet and pods is off by so much (libfaketime). */
  readonly clockSkewSeconds?: number;
}

interface NodeWithConditions extends KubeObject {
  readonly status: { readonly conditions: readonly { readonly type: string; readonly status: string }[] };
}

/** A node of the cluster: a machine of the lab with a kubelet. */
export class ClusterNode {
  readonly machine: LabNode;
  readonly logFile: string;
  #command: readonly string[];
  #env: Readonly<Record<string, string>>;
  #kubelet: LabProcess;

  constructor(machine: LabNode, command: readonly string[], env: Readonly<Record<string, string>>) {
    this.machine = machine;
    this.logFile = join(machine.stateDir, 'kubelet.log');
    this.#command = command;
    this.#env = env;
    this.#kubelet = this.#spawn();
  }

  get name(): string {
    return this.machine.name;
  }

  get kubelet(): LabProcess {
    return this.#kubelet;
  }

  /** Starts the kubelet after `crash`. */
  start(): void {
    this.#kubelet = this.#spawn();
  }

  /** Ends kubelet and pods at once, as a power cut: the API server is told nothing. */
  async crash(): Promise<void> {
    this.#kubelet.signal('SIGKILL');
    killCgroup(this.machine.kubepods);
    await this.#kubelet.ended;
  }

  #spawn(): LabProcess {
    return this.machine.spawn(this.#command, { service: 'kubelet', logFile: this.logFile, env: this.#env });
  }
}

/** A Kubernetes cluster on the lab: a control plane and nodes with lab kubelets. */
export class Cluster {
  readonly plane: ControlPlane;
  readonly lab: Lab;
  readonly nodes: ClusterNode[];
  #images: ImageTable;
  #ownsLab: boolean;

  private constructor(plane: ControlPlane, images: ImageTable, ownsLab: boolean) {
    this.plane = plane;
    this.lab = plane.lab;
    this.nodes = [];
    this.#images = images;
    this.#ownsLab = ownsLab;
  }

  /** Starts it and waits until all nodes are Ready. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const lab = options.lab ?? (await Lab.create());
    try {
      const plane = await ControlPlane.start({ ...options, lab });
      const cluster = new Cluster(
        plane,
        { ...defaultImages(), ...options.images },
        options.lab === undefined,
      );
      for (const name of options.nodes ?? ['a', 'b']) await cluster.addNode(name);
      await Promise.all(cluster.nodes.map(({ name }) => cluster.waitForNode(name)));
      return cluster;
    } catch (thrown) {
      if (options.lab === undefined) lab.close();
      throw thrown;
    }
  }

  /** Adds a machine and starts its kubelet; see `waitForNode`. */
  async addNode(name: string, options: ClusterNodeOptions = {}): Promise<ClusterNode> {
    const machine = await this.lab.node(name, options);
    const file = join(machine.stateDir, 'kubelet.json');
    mkdirSync(machine.stateDir, { recursive: true });
    writeFileSync(file, JSON.stringify(this.#configOf(machine, options)), { mode: 0o600 });
    const program = fileURLToPath(new URL('kubelet/main.js', import.meta.url));
    const skew = options.clockSkewSeconds ?? 0;
    const node = new ClusterNode(
      machine,
      [process.execPath, program, file],
      skew === 0 ? {} : fakeTime(skew),
    );
    this.nodes.push(node);
    return node;
  }

  /** Resolves when the node is Ready. */
  async waitForNode(name: string): Promise<void> {
    const node = this.nodes.find((each) => each.name === name);
    await waitFor(
      `node ${name} to be Ready`,
      async () => {
        if (node?.kubelet.running === false)
          throw new Error(`its kubelet ended: ${node.kubelet.stderr.slice(-2000)}`);
        const { status } = await this.plane.api.get<NodeWithConditions>(`/api/v1/nodes/${name}`);
        return status.conditions.some(
          (condition) => condition.type === 'Ready' && condition.status === 'True',
        );
      },
      { timeoutMs: 60_000, intervalMs: 100 },
    );
  }

  /** Output of kubectl as cluster admin. */
  async kubectl(...args: string[]): Promise<string> {
    return await this.plane.kubectl(...args);
  }

  /** Ends everything. */
  close(): void {
    this.plane.close();
    if (this.#ownsLab) this.lab.close();
  }

  /** `using` for tests. */
  [Symbol.dispose](): void {
    this.close();
  }

  #configOf(machine: LabNode, options: ClusterNodeOptions): KubeletConfig {
    const { plane } = this;
    const { name, index, netns, cgroup, cgroupDriver, stateDir, bpffsDir } = machine;
    return {
      ...{ node: name, index, netns, cgroup, cgroupDriver, stateDir, bpffsDir },
      ips: [machine.ip, machine.ip6],
      labels: options.labels ?? {},
      url: plane.internalUrl,
      caFile: plane.ca.certificateFile,
      credentials: plane.nodeCredentials(name, [machine.ip, machine.ip6]),
      proxyCredentials: plane.credentials({ user: 'system:kube-proxy' }),
      images: this.#images,
      reuseAddresses: options.reuseAddresses ?? false,
      clockSkewSeconds: options.clockSkewSeconds ?? 0,
    };
  }
}

/** Starts a cluster; `using cluster = await startCluster()` ends it with the scope. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  return await Cluster.start(options);
}

/** Environment in which a program's clock is off; needs Debian's `libfaketime`. */
export function fakeTime(seconds: number): Record<string, string> {
  return {
    LD_PRELOAD: '/usr/$LIB/faketime/libfaketime.so.1',
    FAKETIME: `${seconds > 0 ? '+' : ''}${seconds}s`,
    DONT_FAKE_MONOTONIC: '1',
  };
}
