import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Lab, type LabNode, type LabProcess, waitFor } from '../lab/index.js';
import { ApiClient } from './api.js';
import { ensureKubernetes, type KubernetesBinaries } from './binaries.js';
import { type CertificateRequest, ClusterCa, type Credentials, writeKubeconfig } from './certificates.js';
import { type Component, commandsOf } from './commands.js';

export interface ControlPlaneOptions {
  /** The lab it is to be in; absent: one of its own, which ends with it. */
  readonly lab?: Lab;
  readonly onProgress?: (line: string) => void;
  /** Further flags by component. */
  readonly flags?: Partial<Readonly<Record<Component, readonly string[]>>>;
}

const API_PORT = 6443;
const RUN_TIMEOUT_MS = 120_000;
/** helm waits for hooks and for what it has made. */
const HELM_TIMEOUT_MS = 600_000;

/**
 * A Kubernetes control plane: etcd, API server, controller manager and scheduler on a machine of the lab, which is no node of the cluster.
 * The API server advertises its address on the lab's bridge; from the machine's own namespace (tests, people) it is reached at `url`.
 */
export class ControlPlane {
  readonly lab: Lab;
  readonly machine: LabNode;
  readonly binaries: KubernetesBinaries;
  readonly ca: ClusterCa;
  /** `https://127.0.0.1:…`: from this machine. */
  readonly url: string;
  /** `https://172.30.0.n:6443`: from nodes and pods, as the Service `kubernetes` has it. */
  readonly internalUrl: string;
  /** Path of the cluster admin's, for `url`. */
  readonly kubeconfig: string;
  readonly admin: Credentials;
  /** As cluster admin. */
  readonly api: ApiClient;
  #commands: Readonly<Record<Component, readonly string[]>>;
  #processes: Map<Component, LabProcess>;
  #gate: ChildProcess;
  #ownsLab: boolean;
  #issued = 0;

  private constructor(parts: {
    readonly lab: Lab;
    readonly ownsLab: boolean;
    readonly machine: LabNode;
    readonly binaries: KubernetesBinaries;
    readonly ca: ClusterCa;
    readonly flags: ControlPlaneOptions['flags'];
    readonly gate: { readonly child: ChildProcess; readonly port: number };
  }) {
    const { lab, machine, binaries, ca, gate } = parts;
    this.lab = lab;
    this.machine = machine;
    this.binaries = binaries;
    this.ca = ca;
    this.url = `https://127.0.0.1:${gate.port}`;
    this.internalUrl = `https://${machine.ip}:${API_PORT}`;
    this.admin = ca.issue('admin', { user: 'kubernetes-admin', groups: ['system:masters'] });
    this.kubeconfig = writeKubeconfig(
      join(ca.folder, 'admin.kubeconfig'),
      this.url,
      ca.certificateFile,
      this.admin,
    );
    this.api = new ApiClient({ url: this.url, caFile: ca.certificateFile, credentials: this.admin });
    this.#commands = commandsOf({ binaries, ca, machine, url: this.internalUrl, flags: parts.flags ?? {} });
    this.#processes = new Map();
    this.#gate = gate.child;
    this.#ownsLab = parts.ownsLab;
  }

  /** Starts it and waits until the API server is ready; some 5 s where the programs are built. */
  static async start(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
    const binaries = await ensureKubernetes(options.onProgress);
    const lab = options.lab ?? (await Lab.create());
    try {
      const machine = await lab.node('control-plane');
      const ca = new ClusterCa(join(machine.stateDir, 'pki'));
      mkdirSync(join(machine.stateDir, 'etcd'), { recursive: true });
      const gate = await openGate(machine);
      const ownsLab = options.lab === undefined;
      const plane = new ControlPlane({ lab, ownsLab, machine, binaries, ca, flags: options.flags, gate });
      await plane.startComponent('etcd');
      await plane.startComponent('apiServer');
      await Promise.all([plane.startComponent('controllerManager'), plane.startComponent('scheduler')]);
      return plane;
    } catch (thrown) {
      if (options.lab === undefined) lab.close();
      throw thrown;
    }
  }

  /** Credentials of any user, signed by the cluster's authority. */
  credentials(request: CertificateRequest): Credentials {
    // A name of its own each time: another of the same user may be in use.
    return this.ca.issue(`client-${++this.#issued}-${request.user.replaceAll(':', '-')}`, request);
  }

  /** A node's: for its kubelet as client and as server at `addresses`. */
  nodeCredentials(name: string, addresses: readonly string[] = []): Credentials {
    const names = [`DNS:${name}`, ...addresses.map((address) => `IP:${address}`)];
    return this.credentials({ user: `system:node:${name}`, groups: ['system:nodes'], names });
  }

  /** A client of that user. */
  client(credentials: Credentials): ApiClient {
    return new ApiClient({ url: this.url, caFile: this.ca.certificateFile, credentials });
  }

  /** Writes a kubeconfig for the user; gives its path. */
  kubeconfigOf(name: string, credentials: Credentials): string {
    return writeKubeconfig(
      join(this.ca.folder, `${name}.kubeconfig`),
      this.url,
      this.ca.certificateFile,
      credentials,
    );
  }

  /** Output of kubectl as cluster admin; throws what it said where it fails, and, of what was waited for in vain, what `kubectl describe` says. */
  async kubectl(...args: string[]): Promise<string> {
    const running = this.run(this.binaries.kubectl, args);
    if (!args.includes('wait')) return await running;
    return await running.catch(async (error: Error) => {
      const what = args
        .filter((arg) => !arg.startsWith('--'))
        .map((arg) => (arg === 'wait' ? 'describe' : arg));
      throw new Error(`${error.message}\n${await this.run(this.binaries.kubectl, what).catch(String)}`);
    });
  }

  /** Output of helm as cluster admin; throws what it said where it fails. */
  async helm(...args: string[]): Promise<string> {
    return await this.run(this.binaries.helm, args, '', HELM_TIMEOUT_MS);
  }

  /** `kubectl apply` of the objects. */
  async apply(...objects: readonly object[]): Promise<void> {
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    await this.run(this.binaries.kubectl, ['apply', '-f', '-'], list);
  }

  /** Standard output of a program that uses the admin's kubeconfig; throws what it said where it fails. */
  async run(program: string, args: readonly string[], input = '', timeout = RUN_TIMEOUT_MS): Promise<string> {
    return (await this.runBoth(program, args, input, timeout)).stdout;
  }

  /** The same, with what it wrote to standard error. */
  async runBoth(
    program: string,
    args: readonly string[],
    input = '',
    timeout = HELM_TIMEOUT_MS,
  ): Promise<{ readonly stdout: string; readonly stderr: string }> {
    const env = { ...process.env, KUBECONFIG: this.kubeconfig };
    const running = promisify(execFile)(program, args, { env, maxBuffer: 1 << 26, timeout });
    running.child.stdin?.on('error', () => undefined);
    running.child.stdin?.end(input);
    return await running;
  }

  /** What a component printed so far. */
  logFile(component: Component): string {
    return join(this.machine.stateDir, `${component}.log`);
  }

  /** Starts a component (again) and waits until it is ready. */
  async startComponent(component: Component): Promise<void> {
    const service = component.toLowerCase();
    const running = this.machine.spawn(this.#commands[component], {
      service,
      logFile: this.logFile(component),
    });
    this.#processes.set(component, running);
    const ready = component === 'etcd' ? () => etcdIsReady(this.machine) : () => this.#isReady(component);
    await waitFor(
      `${component} to be ready`,
      async () => {
        if (running.running) return await ready();
        throw new Error(`${component} ended: ${running.stderr.slice(-2000)}`);
      },
      { timeoutMs: 120_000, intervalMs: 100 },
    );
  }

  /** Ends a component; SIGKILL is a crash. */
  async stopComponent(component: Component, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#processes.get(component)?.stop(signal);
  }

  /** SIGSTOP and SIGCONT: a component that hangs. */
  signalComponent(component: Component, signal: NodeJS.Signals): void {
    this.#processes.get(component)?.signal(signal);
  }

  /** Ends everything. */
  close(): void {
    this.api.close();
    this.#gate.disconnect();
    if (this.#ownsLab) this.lab.close();
  }

  /** `using` for tests. */
  [Symbol.dispose](): void {
    this.close();
  }

  async #isReady(component: Component): Promise<boolean> {
    if (component !== 'apiServer') return true;
    return (await this.api.raw('/readyz')) === 'ok';
  }
}

/** Starts a control plane. See `ControlPlane`; `using plane = await startControlPlane()` ends it with the scope. */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  return await ControlPlane.start(options);
}

async function etcdIsReady(machine: LabNode): Promise<boolean> {
  const { code, stdout } = await machine.exec(['curl', '-sf', '-m', '2', 'http://127.0.0.1:2379/health']);
  return code === 0 && stdout.includes('"true"');
}

/** Listens on loopback of the machine's own namespace, for the API server in the lab's. */
async function openGate(machine: LabNode): Promise<{ child: ChildProcess; port: number }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const { cgroup, netns } = machine.hostPlace('gate');
  const enter = 'echo $$ > "$1" || exit 1; shift; exec "$@"';
  const program = fileURLToPath(new URL('gate.js', import.meta.url));
  const command = [
    'nsenter',
    `--net=/run/netns/${netns}`,
    process.execPath,
    program,
    machine.ip,
    String(API_PORT),
  ];
  const child = spawn('sh', ['-c', enter, 'lab', join(cgroup, 'cgroup.procs'), ...command], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, NODE_OPTIONS: '' },
    detached: true,
  });
  child.send('server', server);
  await Promise.race([
    once(child, 'message'),
    once(child, 'exit').then(() => {
      throw new Error('the gate to the API server ended at once');
    }),
  ]);
  server.close();
  child.unref();
  child.channel?.unref();
  return { child, port };
}
