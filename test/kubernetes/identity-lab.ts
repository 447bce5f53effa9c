import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildCsr, generateKeyPair } from '../../mesh/identity/index.js';
import { createLog } from '../../mesh/log/index.js';
import { CertificateClient, XdsClient } from '../../mesh/xds/index.js';
import { waitFor } from '../lab/index.js';
import type { ControlPlane } from './control-plane.js';

export const PATIENCE = { timeoutMs: 60_000, intervalMs: 50 };
/** The controller's namespace. */
export const SYSTEM = 'culvert-system';

const RBAC = 'rbac.authorization.k8s.io';
const main = fileURLToPath(new URL('../../control/main.js', import.meta.url));
const log = createLog({ level: 'silent', component: 'test' });

/** What the controller may do, as the chart has it. */
const CLUSTER_RULES = [
  {
    apiGroups: ['', 'discovery.k8s.io', 'networking.istio.io', 'security.istio.io', 'telemetry.istio.io'],
    resources: ['namespaces', 'nodes', 'serviceaccounts', 'pods', 'services', 'endpointslices', 'policies'],
    verbs: ['list', 'watch'],
  },
  { apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'], verbs: ['create'] },
  {
    apiGroups: [''],
    resources: ['configmaps'],
    resourceNames: ['culvert-ca-root-cert'],
    verbs: ['get', 'list', 'watch', 'patch'],
  },
  { apiGroups: [''], resources: ['configmaps'], verbs: ['create'] },
];

/** In its own namespace. */
const OWN_RULES = [
  { apiGroups: [''], resources: ['secrets'], verbs: ['create', 'get', 'update'] },
  { apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: ['create', 'get', 'update', 'patch'] },
];

const metadataOf = (name: string, namespace?: string) =>
  namespace === undefined ? { name } : { name, namespace };

/** A role and its binding to the user `controller`; without a namespace of the cluster. */
export function roleOf(name: string, rules: readonly object[], namespace?: string): object[] {
  const kind = namespace === undefined ? 'ClusterRole' : 'Role';
  const role = { apiVersion: `${RBAC}/v1`, kind, metadata: metadataOf(name, namespace), rules };
  const roleRef = { apiGroup: RBAC, kind, name };
  const subjects = [{ apiGroup: RBAC, kind: 'User', name: 'controller' }];
  return [role, { ...role, kind: `${kind}Binding`, rules: undefined, roleRef, subjects }];
}

/** Namespaces, accounts, nodes n1 and n2 without kubelets, and what the controller may do. */
export async function prepareCluster(plane: ControlPlane): Promise<void> {
  const namespaces = [SYSTEM, 'shop'].map((name) => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name },
  }));
  const accounts = [
    ['culvert-agent', SYSTEM],
    ['cart', 'shop'],
    ['db', 'shop'],
  ].map(([name, namespace]) => ({
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: metadataOf(name!, namespace),
  }));
  await plane.apply(...namespaces, ...accounts, ...roleOf('controller', CLUSTER_RULES));
  await plane.apply(...roleOf('controller', OWN_RULES, SYSTEM));
  await Promise.all(['n1', 'n2'].map((name) => makeNode(plane, name)));
}

export async function makeNode(plane: ControlPlane, name: string): Promise<void> {
  await plane.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name } });
}

/** A pod of that account on that node; no kubelet ever runs it. */
export async function makePod(
  plane: ControlPlane,
  name: string,
  more: { node?: string; account?: string; namespace?: string } = {},
): Promise<void> {
  const { node = 'n1', account = 'culvert-agent', namespace = SYSTEM } = more;
  await plane.api.post(`/api/v1/namespaces/${namespace}/pods`, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { nodeName: node, serviceAccountName: account, containers: [{ name: 'c', image: 'x' }] },
  });
}

/** A token as kubelet projects it into the pod. */
export async function tokenOf(
  plane: ControlPlane,
  pod: string,
  more: { account?: string; namespace?: string; audience?: string; bound?: readonly string[] } = {},
): Promise<string> {
  const { account = 'culvert-agent', namespace = SYSTEM, audience = 'istio-ca' } = more;
  const bound = more.bound ?? ['--bound-object-kind=Pod', `--bound-object-name=${pod}`];
  return (
    await plane.kubectl('create', 'token', account, '-n', namespace, '--audience', audience, ...bound)
  ).trim();
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

/** A controller as a process. */
export class ControllerProcess {
  readonly port: number;
  readonly state: string;
  readonly #child: ChildProcess;
  readonly #monitoring: number;
  #output = '';

  private constructor(child: ChildProcess, state: string, port: number, monitoring: number) {
    this.#child = child;
    this.state = state;
    this.port = port;
    this.#monitoring = monitoring;
    child.stdout!.on('data', (chunk: Buffer) => {
      this.#output += chunk.toString();
    });
    child.stderr!.on('data', (chunk: Buffer) => {
      this.#output += chunk.toString();
    });
  }

  /** Started, not ready yet. */
  static async start(
    plane: ControlPlane,
    name: string,
    more: { options?: readonly string[]; kubeconfig?: string; env?: Readonly<Record<string, string>> } = {},
  ): Promise<ControllerProcess> {
    const [port, monitoring] = [await freePort(), await freePort()];
    const state = join(plane.ca.folder, `controller-${name}-${port}`);
    mkdirSync(state, { mode: 0o700 });
    const kubeconfig =
      more.kubeconfig ?? plane.kubeconfigOf(`controller-${name}`, plane.credentials({ user: 'controller' }));
    const listen = [
      ...['--listen', `127.0.0.1:${port}`, '--admin-listen', '127.0.0.1:0'],
      ...['--monitoring-listen', `127.0.0.1:${monitoring}`],
    ];
    const args = [main, '--source', 'kubernetes', '--kubeconfig', kubeconfig, '--state', state, ...listen];
    const child = spawn(process.execPath, [...args, ...(more.options ?? [])], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: '', ...more.env },
    });
    return new ControllerProcess(child, state, port, monitoring);
  }

  async ready(): Promise<void> {
    await waitFor(
      'the controller to be ready',
      async () => {
        if (this.#child.exitCode !== null) throw new Error(`it ended: ${this.#output.slice(-3000)}`);
        return (await this.get('/healthz/ready')).status === 200;
      },
      PATIENCE,
    );
  }

  async get(path: string): Promise<{ status: number; text: string }> {
    const answer = await fetch(`http://127.0.0.1:${this.#monitoring}${path}`);
    return { status: answer.status, text: await answer.text() };
  }

  /** Value of a line of /metrics; 0 where there is none. */
  async metric(line: string): Promise<number> {
    const found = (await this.get('/metrics')).text.split('\n').find((one) => one.startsWith(`${line} `));
    return Number(found?.split(' ').at(-1) ?? 0);
  }

  /** All that it has written so far. */
  get output(): string {
    return this.#output;
  }

  get rootFile(): string {
    return join(this.state, 'root-cert.pem');
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exited;
  }
}

/** An agent's side of the controller: its own clients, with files that are read anew each time. */
export class AgentSide {
  readonly tokenFile: string;
  readonly rootFile: string;
  readonly #controller: { readonly port: number };
  readonly #node: string;
  #xds: XdsClient | null = null;

  constructor(
    plane: ControlPlane,
    parts: { controller: ControllerProcess; token: string; node?: string; rootFile?: string },
  ) {
    this.#controller = parts.controller;
    this.#node = parts.node ?? 'n1';
    this.rootFile = parts.rootFile ?? parts.controller.rootFile;
    this.tokenFile = join(
      plane.ca.folder,
      `token-${generateKeyPair().publicKey.export({ type: 'spki', format: 'der' }).toString('hex').slice(-16)}`,
    );
    this.setToken(parts.token);
  }

  setToken(token: string): void {
    writeFileSync(this.tokenFile, token, { mode: 0o600 });
  }

  get #options() {
    return {
      address: `127.0.0.1:${this.#controller.port}`,
      rootCertificateFile: this.rootFile,
      tokenFile: this.tokenFile,
      clusterId: 'Kubernetes',
    };
  }

  /** `issued`, or what the controller said. */
  async ask(identity: string, csr = buildCsr(generateKeyPair(), identity)): Promise<string> {
    const client = new CertificateClient({ controller: this.#options, timeoutMs: 20_000 });
    try {
      await client.fetchCertificate(identity, csr);
      return 'issued';
    } catch (error) {
      return (error as Error).message;
    }
  }

  /** The chain, its last element the roots. */
  async fetch(identity: string): Promise<{ chain: readonly string[]; roots: string }> {
    const client = new CertificateClient({ controller: this.#options, timeoutMs: 20_000 });
    return await client.fetchCertificate(identity, buildCsr(generateKeyPair(), identity));
  }

  /** An xDS stream, kept up until `close`. */
  connect(onTrustBundle: (roots: readonly Buffer[]) => void = () => {}): XdsClient {
    const node = { podName: 'agent', podNamespace: SYSTEM, nodeName: this.#node };
    this.#xds = new XdsClient(
      { controller: this.#options, node, maxBackoffMs: 500 },
      { log, onUpdate: () => {}, onTrustBundle },
    );
    this.#xds.start();
    return this.#xds;
  }

  close(): void {
    this.#xds?.stop();
  }

  get roots(): string {
    return readFileSync(this.rootFile, 'utf8');
  }
}
