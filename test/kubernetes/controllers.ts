import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.js';
import { type LabProcess, MESH_NAMESPACE, waitFor } from '../lab/index.js';
import type { ControlPlane } from './control-plane.js';

const PATIENCE = { timeoutMs: 60_000, intervalMs: 100 };

/** A controller as a process beside the API server, with the rights that the chart gives its service account, and none else. */
export class ControllerProcess {
  readonly name: string;
  readonly logFile: string;
  /** Its webhook, as the API server reaches it. */
  readonly webhookPort: number;
  #plane: ControlPlane;
  #monitoringPort: number;
  #process: LabProcess;

  private constructor(plane: ControlPlane, name: string, index: number, flags: readonly string[]) {
    const folder = join(plane.machine.stateDir, name);
    mkdirSync(folder, { recursive: true });
    this.name = name;
    this.logFile = join(folder, 'log');
    this.webhookPort = 15_117 + index * 10;
    this.#plane = plane;
    this.#monitoringPort = 15_114 + index * 10;
    const args = [
      '--source=kubernetes',
      `--kubeconfig=${kubeconfigFile(plane)}`,
      `--namespace=${MESH_NAMESPACE}`,
      `--state=${join(folder, 'state')}`,
      `--listen=${plane.machine.ip}:${15_112 + index * 10}`,
      `--monitoring-listen=127.0.0.1:${this.#monitoringPort}`,
      `--admin-listen=127.0.0.1:${15_116 + index * 10}`,
      ...flags,
    ];
    const program = join(packageRoot(), 'dist/control/main.js');
    this.#process = plane.machine.spawn([process.execPath, program, ...args], {
      service: name,
      logFile: this.logFile,
    });
  }

  /** Resolves when it is ready. `index` keeps its ports apart from others'. */
  static async start(
    plane: ControlPlane,
    name: string,
    index: number,
    flags: readonly string[] = [],
  ): Promise<ControllerProcess> {
    const controller = new ControllerProcess(plane, name, index, flags);
    await waitFor(
      `${name} to be ready`,
      async () => {
        if (!controller.#process.running) throw new Error(`it ended: ${controller.log.slice(-3000)}`);
        return (await controller.get('/healthz/ready')) === 'ready\n';
      },
      PATIENCE,
    );
    return controller;
  }

  get log(): string {
    return readFileSync(this.logFile, 'utf8');
  }

  get isRunning(): boolean {
    return this.#process.running;
  }

  /** Of its monitoring port. */
  async get(path: string): Promise<string> {
    const url = `http://127.0.0.1:${this.#monitoringPort}${path}`;
    return (await this.#plane.machine.exec(['curl', '-s', '-m', '5', url])).stdout;
  }

  /** NaN: there is none. */
  async metric(name: string): Promise<number> {
    const line = (await this.get('/metrics')).split('\n').find((one) => one.startsWith(`${name} `));
    return line === undefined ? Number.NaN : Number(line.split(' ').at(-1));
  }

  async isLeader(): Promise<boolean> {
    return (await this.metric('culvert_leader')) === 1;
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.signal(signal);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#process.stop(signal);
  }
}

function kubeconfigFile(plane: ControlPlane): string {
  return join(plane.ca.folder, 'service-account.kubeconfig');
}

/** Gives the service account its rights, from the chart, and controllers its token. Once, before the first. */
export async function prepareControllers(plane: ControlPlane): Promise<void> {
  const chart = join(packageRoot(), 'charts/culvert');
  await plane.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: MESH_NAMESPACE } });
  const rbac = await plane.helm(
    ...['template', 'culvert', chart, '-n', MESH_NAMESPACE, '-s', 'templates/controller-rbac.yaml'],
  );
  await plane.run(plane.binaries.kubectl, ['apply', '-n', MESH_NAMESPACE, '-f', '-'], rbac);
  const token = await plane.kubectl(
    ...['create', 'token', 'culvert-controller', '-n', MESH_NAMESPACE, '--duration=24h'],
  );
  const authority = readFileSync(plane.ca.certificateFile).toString('base64');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      { name: 'c', cluster: { server: plane.internalUrl, 'certificate-authority-data': authority } },
    ],
    users: [{ name: 'u', user: { token: token.trim() } }],
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'c',
  };
  writeFileSync(kubeconfigFile(plane), JSON.stringify(config), { mode: 0o600 });
}
