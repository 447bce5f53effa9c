import { copyFileSync, existsSync, mkdirSync, renameSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.js';
import type { Lab } from './lab.js';
import { nodeManifest } from './manifests.js';
import type { LabNode } from './node.js';
import type { LabPod } from './pod.js';
import type { LabProcess } from './process.js';
import { waitFor } from './wait.js';

/** Namespace of the mesh's own pods. */
export const MESH_NAMESPACE = 'culvert-system';

/** How README starts an agent; docs/performance.md, "Memory", says why. */
const smallHeap = '--max-semi-space-size=2';

/** A program starts in a second; on a machine with twenty others at work it has been seen to take more than 30. */
const patienceMs = 120_000;

/** Ports in the namespace of the program's node. */
const PORTS = {
  controller: 15012,
  controllerReadiness: 15014,
  agentMetrics: 15020,
  agentReadiness: 15021,
  agentAdmin: 15000,
} as const;

export interface MeshOptions {
  /** Nodes that get an agent. */
  readonly nodes: readonly LabNode[];
  readonly workers?: number;
  readonly logLevel?: string;
  readonly accessLog?: 'json' | 'off';
  /** Runs the programs from a copy of node, so that they share no page with this process: their memory is then their own. */
  readonly ownNodeBinary?: boolean;
  /** Further flags of every agent. */
  readonly agentFlags?: readonly string[];
  /** Environment of a node's agent. */
  readonly agentEnv?: (node: LabNode) => Readonly<Record<string, string>>;
  /** Further flags of the controller. */
  readonly controllerFlags?: readonly string[];
  /** Networks of nodes by their names; of the others ''. */
  readonly networks?: Readonly<Record<string, string>>;
}

/** The parts of an agent's /config_dump that tests look at. */
export interface AgentConfigDump {
  readonly certificates: readonly { readonly identity: string; readonly serial: string | null }[];
  readonly capture: {
    readonly pods: readonly { readonly uid: string; readonly state: string }[];
    readonly unknownPods: number;
    readonly refusals: Readonly<Record<string, number>>;
    readonly maps: readonly { readonly name: string; readonly entries: number; readonly capacity: number }[];
  };
  /** Per worker; null: it did not answer. */
  readonly workers: readonly ({
    readonly engine: Readonly<Record<string, number>>;
    readonly hbone: Readonly<Record<string, number>>;
    readonly tunnel: Readonly<Record<string, number>>;
  } | null)[];
}

/** One line of an agent's access log. */
export type AccessLogLine = Readonly<Record<string, unknown>>;

/** An agent at work: a host-network pod, as a DaemonSet makes it. */
export class MeshAgent {
  readonly node: LabNode;
  readonly pod: LabPod;
  /** Everything the program prints. */
  readonly logFile: string;
  #command: readonly string[];
  #env: Readonly<Record<string, string>>;
  #process: LabProcess;
  #successors = 0;

  constructor(pod: LabPod, command: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.node = pod.node;
    this.pod = pod;
    this.#command = command;
    this.#env = env;
    this.logFile = join(pod.node.stateDir, 'agent.log');
    this.#process = this.#spawn();
  }

  get process(): LabProcess {
    return this.#process;
  }

  /** Starts another agent beside this one, in a pod of its own; it takes over. `flags` go over its own. Resolves at once: see `waitUntilServing`. */
  async startSuccessor(flags: readonly string[] = []): Promise<MeshAgent> {
    const { namespace, serviceAccount } = this.pod;
    const name = `${this.pod.name}-${++this.#successors}`;
    const pod = await this.node.pod(name, { namespace, serviceAccount, hostNetwork: true });
    return new MeshAgent(pod, [...this.#command, ...flags], this.#env);
  }

  /** It has its place to itself: another agent's admin answers as well. */
  async waitUntilServing(): Promise<void> {
    await this.#process.waitForOutput(/capture is in place/, patienceMs);
  }

  /** Starts the program again after its end, with the same flags. */
  async restart(): Promise<void> {
    this.#process = this.#spawn();
    await this.waitUntilReady();
  }

  #spawn(): LabProcess {
    return this.pod.spawn(this.#command, { env: this.#env, logFile: this.logFile });
  }

  async waitUntilReady(): Promise<void> {
    await waitUntilReady(this.node, PORTS.agentReadiness, this.#process, `agent of node ${this.node.name}`);
  }

  /** Text of /metrics. */
  async metrics(): Promise<string> {
    return await this.node.output([
      'curl',
      '-sS',
      '-m',
      '10',
      `http://127.0.0.1:${PORTS.agentMetrics}/metrics`,
    ]);
  }

  /** What the agent knows and does now. */
  async config(): Promise<AgentConfigDump> {
    return JSON.parse(await this.admin('/config_dump')) as AgentConfigDump;
  }

  /** Asks the agent's admin server. Throws where the answer is not 2xx. */
  async admin(path: string, method: 'GET' | 'POST' = 'GET'): Promise<string> {
    const url = `http://127.0.0.1:${PORTS.agentAdmin}${path}`;
    return await this.node.output(['curl', '-sS', '--fail-with-body', '-m', '10', '-X', method, url]);
  }

  /** What becomes of the pod's connections: `plain`, `captured`, …; '' while the agent does not know it. */
  async stateOf(pod: LabPod): Promise<string> {
    return (await this.config()).capture.pods.find(({ uid }) => uid === pod.uid)?.state ?? '';
  }

  /** The access log so far: one line a connection that has ended. */
  accessLog(): AccessLogLine[] {
    return this.#process.stdout
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as AccessLogLine)
      .filter((line) => line['scope'] === 'access');
  }
}

/** Controller and agents in a lab. Ends with the lab, or before it with `stop`. */
export interface Mesh {
  /** The one that runs now. */
  readonly controller: LabProcess;
  /** In the order of `MeshOptions.nodes`. */
  readonly agents: readonly MeshAgent[];
  /** Resolves once the agents have captured all the pods. */
  waitUntilCaptured(pods: readonly LabPod[]): Promise<void>;
  /** Resolves once the agents leave all the pods alone. */
  waitUntilPlain(pods: readonly LabPod[]): Promise<void>;
  /** The controller's own folder. */
  readonly controllerState: string;
  /** Runs a program of the controller's (`rotate-root.js`) where the controller runs; throws where it fails. */
  controllerProgram(name: string, ...args: string[]): Promise<string>;
  /** Text of the controller's /metrics. */
  controllerMetrics(): Promise<string>;
  /** Starts the controller again after its end, with the same state, and other further flags if given; resolves when it is ready. */
  restartController(flags?: readonly string[]): Promise<void>;
  stop(): Promise<void>;
}

/** Starts a controller on a node of its own and an agent on each given node; resolves when all are ready. Throws with their output where one is not. */
export async function startMesh(lab: Lab, options: MeshOptions): Promise<Mesh> {
  const controlNode = await lab.node(`control-${lab.nodes.length + 1}`);
  lab.namespace(MESH_NAMESPACE);
  const stateDir = join(controlNode.stateDir, 'controller');
  mkdirSync(stateDir, { recursive: true });
  const node = options.ownNodeBinary ? copyOfNode() : process.execPath;
  const commands = meshCommands({ lab, controlNode, stateDir, node, options });

  const startController = async (flags = options.controllerFlags ?? []): Promise<LabProcess> => {
    const started = controlNode.spawn([...commands.controller, ...flags], {
      service: 'culvert-controller',
      logFile: join(controlNode.stateDir, 'controller.log'),
    });
    await waitUntilReady(controlNode, PORTS.controllerReadiness, started, 'controller');
    return started;
  };
  let controller = await startController();
  const agents: MeshAgent[] = [];
  for (const [name, network] of Object.entries(options.networks ?? {}))
    lab.manifests.apply(nodeManifest(name, [], { 'topology.istio.io/network': network }));
  for (const agentNode of options.nodes) {
    const pod = await agentNode.pod(`culvert-agent-${agentNode.name}`, {
      namespace: MESH_NAMESPACE,
      serviceAccount: 'culvert-agent',
      hostNetwork: true,
    });
    agents.push(new MeshAgent(pod, await commands.agent(agentNode), options.agentEnv?.(agentNode)));
  }
  for (const agent of agents) await agent.waitUntilReady();

  return {
    get controller() {
      return controller;
    },
    agents,
    waitUntilCaptured: async (pods) => await waitForState(agents, pods, 'captured'),
    waitUntilPlain: async (pods) => await waitForState(agents, pods, 'plain'),
    controllerState: stateDir,
    controllerProgram: async (name, ...args) =>
      await controlNode.output([node, join(packageRoot(), 'dist/control', name), ...args]),
    controllerMetrics: async () => {
      const url = `http://127.0.0.1:${PORTS.controllerReadiness}/metrics`;
      return await controlNode.output(['curl', '-sS', '-m', '10', url]);
    },
    restartController: async (flags) => {
      controller = await startController(flags);
    },
    stop: async () => {
      await Promise.all([...agents.map((agent) => agent.process.stop()), controller.stop()]);
    },
  };
}

interface CommandInputs {
  readonly lab: Lab;
  readonly controlNode: LabNode;
  /** Folder of the controller's own files. */
  readonly stateDir: string;
  /** The node binary to run. */
  readonly node: string;
  readonly options: MeshOptions;
}

/** How the programs are called: the only place that knows their flags. */
function meshCommands({ lab, controlNode, stateDir, node, options }: CommandInputs) {
  const program = (path: string): string[] => [node, join(packageRoot(), 'dist', path)];
  const shared = ['--manifests', lab.manifests.path, '--log-level', options.logLevel ?? 'info'];
  return {
    controller: [...program('control/main.js'), ...shared, '--state', stateDir],
    agent: async (agentNode: LabNode): Promise<string[]> => {
      const token = join(agentNode.stateDir, 'join-token');
      const mint = ['--state', stateDir, '--node', agentNode.name, '--out', token];
      await controlNode.output([...program('control/token.js'), ...mint]);
      return [
        ...[node, smallHeap, join(packageRoot(), 'dist/agent/main.js')],
        ...shared,
        ...['--node', agentNode.name, '--token', token],
        ...['--controller', `${controlNode.ip}:${PORTS.controller}`],
        ...['--controller-root', join(stateDir, 'root-cert.pem')],
        ...['--pods-cgroup', agentNode.kubepods, '--bpffs', agentNode.bpffsDir],
        ...['--run-dir', join(agentNode.stateDir, 'run')],
        ...['--kubelet-cgroup', agentNode.hostPlace('kubelet').cgroup],
        ...['--host-netns', `/run/netns/${agentNode.netns}`],
        ...['--workers', String(options.workers ?? 1), '--access-log', options.accessLog ?? 'json'],
        ...(options.networks?.[agentNode.name] === undefined
          ? []
          : ['--network', options.networks[agentNode.name]!]),
        ...(options.agentFlags ?? []),
      ];
    },
  };
}

async function waitUntilReady(node: LabNode, port: number, program: LabProcess, what: string): Promise<void> {
  const url = `http://127.0.0.1:${port}/healthz/ready`;
  const isReady = async (): Promise<boolean> => {
    if (!program.running) return true; // Then it never will be; told below.
    return (await node.exec(['curl', '-sf', '-m', '2', '-o', '/dev/null', url])).code === 0;
  };
  try {
    await waitFor(`${what} to be ready`, isReady, { timeoutMs: patienceMs, intervalMs: 100 });
    if (!program.running) throw new Error(`${what} ended`);
  } catch (thrown) {
    throw new Error(
      `${what} is not ready\n${program.command.join(' ')}\n${program.stdout}\n${program.stderr}`,
      {
        cause: thrown,
      },
    );
  }
}

async function waitForState(
  agents: readonly MeshAgent[],
  pods: readonly LabPod[],
  state: 'captured' | 'plain',
): Promise<void> {
  for (const pod of pods) {
    const agent = agents.find(({ node }) => node === pod.node);
    if (agent === undefined) throw new Error(`no agent on ${pod.node.name}, the node of ${pod.name}`);
    await waitFor(`${pod.name} to be ${state}`, async () => (await agent.stateOf(pod)) === state, {
      timeoutMs: patienceMs,
    });
  }
}

function copyOfNode(): string {
  const cache = process.env['CULVERT_CACHE'] ?? join(homedir(), '.cache/culvert');
  const copy = join(cache, `node-${process.version}`);
  if (!existsSync(copy)) {
    mkdirSync(cache, { recursive: true });
    copyFileSync(process.execPath, `${copy}.${process.pid}`);
    renameSync(`${copy}.${process.pid}`, copy);
  }
  return copy;
}
