import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.js';
import { type LabProcess, MESH_NAMESPACE, processesIn, waitFor } from '../lab/index.js';
import { writeKubeconfig } from './certificates.js';
import type { Cluster, ClusterNode } from './cluster.js';

const RBAC = 'rbac.authorization.k8s.io';
const AGENT = 'culvert-agent';
const PATIENCE = { timeoutMs: 90_000, intervalMs: 100 };

export interface ClusterMeshOptions {
  /** Further flags of every agent. */
  readonly agentFlags?: readonly string[];
  /** Further flags of the controller. */
  readonly controllerFlags?: readonly string[];
  /** Seconds that a pod may take to end; also the drain. */
  readonly graceSeconds?: number;
}

interface PodObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
}

/** What an agent tells of its pods. */
export interface AgentPod {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly state: string;
  readonly reason: string;
}

/**
 * The mesh on a cluster, without the chart: agents as a DaemonSet of pods with networks of their own and rights as few as they need, the controller
 * as a process beside the API server. For tests of the agent's part; those of the chart install the chart.
 */
export class ClusterMesh {
  readonly cluster: Cluster;
  readonly stateDir: string;
  #options: ClusterMeshOptions;
  #controller: LabProcess;

  private constructor(cluster: Cluster, stateDir: string, options: ClusterMeshOptions) {
    this.cluster = cluster;
    this.stateDir = stateDir;
    this.#options = options;
    this.#controller = this.#spawnController();
  }

  /** Resolves when an agent is ready on every node. */
  static async start(cluster: Cluster, options: ClusterMeshOptions = {}): Promise<ClusterMesh> {
    const stateDir = join(cluster.plane.machine.stateDir, 'controller');
    mkdirSync(stateDir, { recursive: true });
    await cluster.plane.apply(...rights());
    const mesh = new ClusterMesh(cluster, stateDir, options);
    await mesh.#waitForController();
    await mesh.#publishTrust();
    await cluster.plane.apply(agents(mesh.#agentArgs(), options.graceSeconds ?? 5));
    await mesh.waitForAgents();
    return mesh;
  }

  get controller(): LabProcess {
    return this.#controller;
  }

  async restartController(): Promise<void> {
    await this.#controller.stop('SIGKILL');
    this.#controller = this.#spawnController();
    await this.#waitForController();
  }

  /** Also after a node was added. */
  async waitForAgents(): Promise<void> {
    await waitFor(
      'an agent on every node',
      async () => {
        const { status } = await this.cluster.plane.api.get<{ status: Record<string, number> }>(
          `/apis/apps/v1/namespaces/${MESH_NAMESPACE}/daemonsets/${AGENT}`,
        );
        const wanted = this.cluster.nodes.length;
        return status['numberReady'] === wanted && status['desiredNumberScheduled'] === wanted;
      },
      PATIENCE,
    ).catch(async (thrown: unknown) => {
      const logs = await Promise.all(this.cluster.nodes.map((node) => this.agentLog(node).catch(String)));
      throw new Error(`${logs.map((log) => log.slice(-3000)).join('\n---\n')}`, { cause: thrown });
    });
  }

  /** Name of the agent's pod on a node. */
  async agentPodOn({ name }: ClusterNode): Promise<string> {
    const query = `labelSelector=app.kubernetes.io/name=${AGENT}&fieldSelector=spec.nodeName=${name}`;
    const { items } = await this.cluster.plane.api.get<{ items: readonly PodObject[] }>(
      `/api/v1/namespaces/${MESH_NAMESPACE}/pods?${query}`,
    );
    return items[0]!.metadata.name;
  }

  async agentLog(node: ClusterNode): Promise<string> {
    return await this.cluster.kubectl('logs', '-n', MESH_NAMESPACE, await this.agentPodOn(node));
  }

  /** Lines of the access log of a node's agent, of connections that have ended. */
  async accessLog(node: ClusterNode): Promise<readonly Readonly<Record<string, unknown>>[]> {
    const lines = (await this.agentLog(node)).split('\n').filter((line) => line.startsWith('{'));
    return lines
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ scope }) => scope === 'access');
  }

  /** Asks the agent's admin server, by its process's own namespace: it needs neither API server nor kubelet. */
  admin(node: ClusterNode, path: string, port = 15000): string {
    const pid = this.agentPid(node);
    const url = `http://127.0.0.1:${port}${path}`;
    return execFileSync('nsenter', [`--net=/proc/${pid}/ns/net`, 'curl', '-sS', '-m', '10', url], {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** The agent's process; throws where there is none. */
  agentPid({ machine }: ClusterNode): number {
    const main = join(packageRoot(), 'dist/agent/main.js');
    for (const pid of processesIn(machine.kubepods)) {
      try {
        if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(main)) return pid;
      } catch {
        // it has ended
      }
    }
    throw new Error(`no agent runs on ${machine.name}`);
  }

  /** What the agent has printed since it was started last, read from the node's disk: it needs no API server. */
  agentLogFile({ machine }: ClusterNode): string {
    const folders = readdirSync(join(machine.stateDir, 'pods')).map((uid) =>
      join(machine.stateDir, 'pods', uid),
    );
    const files = folders.map((folder) => join(folder, 'logs/agent.log')).filter((file) => existsSync(file));
    const newest = files.sort((x, y) => statSync(x).mtimeMs - statSync(y).mtimeMs).at(-1);
    // Time, stream, text.
    const lines = readFileSync(newest!, 'utf8').split('\n');
    return lines.map((line) => line.split(' ').slice(2).join(' ')).join('\n');
  }

  /** Runs curl as the first process of a pod would, without API server and kubelet. */
  processIn({ machine }: ClusterNode, namespace: string, name: string): { curl(url: string): string } {
    const dump = this.pods(this.cluster.nodes.find((node) => node.machine === machine)!);
    const { uid } = dump.find((one) => one.namespace === namespace && one.name === name)!;
    const cgroup = join(
      machine.kubepods,
      'kubepods-besteffort.slice',
      `kubepods-besteffort-pod${uid.replaceAll('-', '_')}.slice`,
    );
    const container = readdirSync(cgroup).find((entry) => entry.endsWith('.scope'))!;
    const procs = join(cgroup, container, 'cgroup.procs');
    const [pid] = processesIn(cgroup);
    return {
      curl: (url) => {
        const enter = 'echo $$ > "$0"; exec "$@"';
        const command = ['nsenter', `--net=/proc/${pid}/ns/net`, 'curl', '-sS', '-m', '5', url];
        return execFileSync('sh', ['-c', enter, procs, ...command], {
          encoding: 'utf8',
          stdio: ['ignore', 'pipe', 'pipe'],
        });
      },
    };
  }

  pods(node: ClusterNode): readonly AgentPod[] {
    const dump = JSON.parse(this.admin(node, '/config_dump')) as { capture: { pods: readonly AgentPod[] } };
    return dump.capture.pods;
  }

  #spawnController(): LabProcess {
    const { plane } = this.cluster;
    const credentials = plane.credentials({ user: 'controller', groups: ['culvert:controllers'] });
    const file = join(this.stateDir, 'kubeconfig');
    const kubeconfig = writeKubeconfig(file, plane.internalUrl, plane.ca.certificateFile, credentials);
    return plane.machine.spawn(
      [
        ...[process.execPath, join(packageRoot(), 'dist/control/main.js')],
        ...['--source', 'kubernetes', '--kubeconfig', kubeconfig, '--state', this.stateDir],
        ...['--names', `culvert-controller.${MESH_NAMESPACE}.svc`],
        ...(this.#options.controllerFlags ?? []),
      ],
      { service: 'culvert-controller', logFile: join(this.stateDir, 'controller.log') },
    );
  }

  async #waitForController(): Promise<void> {
    await waitFor(
      'the controller to be ready',
      async () => {
        if (!this.#controller.running) throw new Error(this.#controller.stderr + this.#controller.stdout);
        const url = 'http://127.0.0.1:15014/healthz/ready';
        return (await this.cluster.plane.machine.exec(['curl', '-sf', '-m', '2', url])).code === 0;
      },
      PATIENCE,
    );
  }

  /** The root that signs the controller. */
  async #publishTrust(): Promise<void> {
    await this.cluster.plane.apply({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { namespace: MESH_NAMESPACE, name: 'culvert-ca-root-cert' },
      data: { 'root-cert.pem': readFileSync(join(this.stateDir, 'root-cert.pem'), 'utf8') },
    });
  }

  #agentArgs(): readonly string[] {
    const { machine } = this.cluster.plane;
    return [
      ...['--node', '$(NODE_NAME)', '--source', 'kubernetes'],
      ...['--controller', `${machine.ip}:15012`, '--controller-root', '/var/run/secrets/istio/root-cert.pem'],
      ...['--token', '/var/run/secrets/tokens/istio-token', '--cgroup-root', '/sys/fs/cgroup'],
      // What a real node shows by itself: here process 1 is the machine's, and kubelet is a script.
      ...['--host-netns', `/run/netns/${machine.lab.names.netns}$(NODE_NAME)`],
      ...['--kubelet-cgroup', 'system.slice/kubelet.service', '--drain', '1s'],
      ...(this.#options.agentFlags ?? []),
    ];
  }
}

/** Namespace, accounts and roles. */
function rights(): object[] {
  const metadata = { name: AGENT, namespace: MESH_NAMESPACE };
  const read = ['get', 'list', 'watch'];
  const clusterRole = (name: string, rules: readonly object[], subject: object): object[] => [
    { apiVersion: `${RBAC}/v1`, kind: 'ClusterRole', metadata: { name }, rules },
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name },
      subjects: [subject],
      roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name },
    },
  ];
  const agentRules = [
    { apiGroups: [''], resources: ['namespaces'], verbs: read },
    { apiGroups: ['authentication.k8s.io'], resources: ['nodes'], verbs: ['impersonate:associated-node'] },
    {
      apiGroups: [''],
      resources: ['pods'],
      verbs: ['impersonate-on:associated-node:list', 'impersonate-on:associated-node:watch'],
    },
    { apiGroups: [''], resources: ['pods/status'], verbs: ['patch'] },
  ];
  const account = { kind: 'ServiceAccount', ...metadata };
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: MESH_NAMESPACE } },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
    ...clusterRole(AGENT, agentRules, account),
    ...clusterRole('culvert-controller', controllerRules(read), {
      apiGroup: RBAC,
      kind: 'Group',
      name: 'culvert:controllers',
    }),
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'Role',
      metadata,
      rules: [
        {
          apiGroups: [''],
          resources: ['configmaps'],
          resourceNames: ['culvert-uninstall'],
          verbs: [...read, 'patch'],
        },
      ],
    },
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'RoleBinding',
      metadata,
      subjects: [account],
      roleRef: { apiGroup: RBAC, kind: 'Role', name: AGENT },
    },
  ];
}

/** As in the chart, but not confined to the namespace where the chart does so. */
function controllerRules(read: readonly string[]): object[] {
  const write = ['create', 'update', 'patch'];
  return [
    { apiGroups: ['*'], resources: ['*'], verbs: read },
    { apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'], verbs: ['create'] },
    { apiGroups: [''], resources: ['secrets', 'configmaps'], verbs: write },
    { apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: write },
  ];
}

function agents(args: readonly string[], graceSeconds: number): object {
  const labels = { 'app.kubernetes.io/name': AGENT };
  const hostPath = (name: string, path: string, type?: string) => ({
    volume: { name, hostPath: { path, ...(type === undefined ? {} : { type }) } },
    mount: { name, mountPath: path },
  });
  const mounts = [
    hostPath('bpf', '/sys/fs/bpf'),
    hostPath('cgroup', '/sys/fs/cgroup'),
    hostPath('netns', '/run/netns'),
    hostPath('run', '/run/culvert', 'DirectoryOrCreate'),
    hostPath('cni-bin', '/opt/cni/bin', 'DirectoryOrCreate'),
    hostPath('cni-conf', '/etc/cni/net.d', 'DirectoryOrCreate'),
    {
      volume: { name: 'root', configMap: { name: 'culvert-ca-root-cert' } },
      mount: { name: 'root', mountPath: '/var/run/secrets/istio' },
    },
    {
      volume: {
        name: 'tokens',
        projected: {
          defaultMode: 0o400,
          sources: [{ serviceAccountToken: { path: 'istio-token', audience: 'istio-ca' } }],
        },
      },
      mount: { name: 'tokens', mountPath: '/var/run/secrets/tokens' },
    },
  ];
  const container = {
    name: 'agent',
    image: 'culvert/agent',
    args,
    env: [
      { name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
      { name: 'NODE_OPTIONS', value: '--max-semi-space-size=2' },
    ],
    readinessProbe: { httpGet: { port: 15021, path: '/healthz/ready' }, periodSeconds: 1 },
    securityContext: { privileged: true },
    volumeMounts: mounts.map(({ mount }) => mount),
  };
  return {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name: AGENT, namespace: MESH_NAMESPACE },
    spec: {
      selector: { matchLabels: labels },
      updateStrategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
      template: {
        metadata: { labels },
        spec: {
          serviceAccountName: AGENT,
          hostPID: true,
          terminationGracePeriodSeconds: graceSeconds,
          tolerations: [{ operator: 'Exists' }],
          containers: [container],
          volumes: mounts.map(({ volume }) => volume),
        },
      },
    },
  };
}
