import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Bpf } from '../../native/bpf/index.js';
import { packageRoot } from '../../native/package-root.js';
import { waitFor } from '../lab/index.js';
import type { LoadReport } from '../support/load-client.js';
import { type Cluster, type ClusterNode, startCluster } from './cluster.js';

// charts/culvert by helm on a real cluster, from nothing to nothing: install, label, unlabel, upgrade under load, rollback, uninstall, install again.
// The tests are steps: each stands on those before it.

const CHART = join(packageRoot(), 'charts/culvert');
const SYSTEM = 'culvert-system';
const MODE = 'istio.io/dataplane-mode';
const ANNOTATION = 'ambient.istio.io/redirection';
const FOREIGN = 'sidecars.networking.istio.io';
const PATIENCE = { timeoutMs: 90_000, intervalMs: 100 };
/** cgroup ingress, sock_ops, connect4|6, sendmsg4|6, recvmsg4|6, getpeername4|6 (enum bpf_attach_type). */
const CGROUP_HOOKS = [0, 3, 10, 11, 14, 15, 19, 20, 29, 30];

let cluster: Cluster;
let a: ClusterNode;
let b: ClusterNode;

const kubectl = (...args: string[]) => cluster.kubectl(...args);
const inShop = (...args: string[]) => kubectl('-n', 'shop', ...args);
const inSystem = (...args: string[]) => kubectl('-n', SYSTEM, ...args);
const jsonpath = async (path: string, ...what: string[]) =>
  await kubectl('get', ...what, '-o', `jsonpath={${path}}`);
const named = async (...what: string[]) =>
  (await kubectl('get', ...what, '-o', 'name')).split('\n').filter(Boolean);

/** helm, patient with a busy machine. */
async function helm(...args: string[]): Promise<string> {
  try {
    return await cluster.plane.helm(...args, '-n', SYSTEM);
  } catch (thrown) {
    const pods = await inSystem('get', 'pods', '-o', 'wide').catch(String);
    const logs = await inSystem(
      'logs',
      '-l',
      'app.kubernetes.io/part-of=culvert',
      '--tail=4',
      '--prefix',
    ).catch(String);
    throw new Error(`helm ${args.join(' ')}\n${pods}\n${logs}`, { cause: thrown });
  }
}

const install = (...args: string[]) =>
  helm('install', 'culvert', CHART, '--create-namespace', '--wait', '--timeout', '5m', ...args);

const account = (name: string) => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: { name, namespace: 'shop' },
});

function pod(name: string, nodeName: string, container: object): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'shop', labels: { app: name } },
    spec: {
      nodeName,
      serviceAccountName: name,
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'main', ...container }],
    },
  };
}

const POLICY = {
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name: 'all', namespace: 'shop' },
  spec: { rules: [{}] },
};
const ROUTE = {
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'HTTPRoute',
  metadata: { name: 'web', namespace: 'shop' },
  spec: { rules: [{ backendRefs: [{ name: 'server', port: 80 }] }] },
};

/** As Istio's own chart would have left it. */
const FOREIGN_CRD = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: FOREIGN, labels: { 'app.kubernetes.io/managed-by': 'Helm' } },
  spec: {
    group: 'networking.istio.io',
    scope: 'Namespaced',
    names: { kind: 'Sidecar', listKind: 'SidecarList', plural: 'sidecars', singular: 'sidecar' },
    versions: [
      {
        ...{ name: 'v1', served: true, storage: true },
        schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
      },
    ],
  },
};

beforeAll(async () => {
  cluster = await startCluster({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  [a, b] = cluster.nodes as [ClusterNode, ClusterNode];
  await cluster.plane.apply(
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } },
    ...['client', 'server', 'app'].map(account),
    pod('client', 'a', { image: 'culvert', command: ['sleep', '1000000'] }),
    pod('server', 'b', { image: 'culvert-test/http-echo' }),
    pod('app', 'b', { image: 'culvert-test/tcp-app' }),
    FOREIGN_CRD,
  );
  await inShop('wait', '--for=condition=Ready', 'pods', '--all', '--timeout=60s');
}, 3_600_000);

afterAll(() => cluster?.close());

const addressOf = (name: string) => jsonpath('.status.podIP', '-n', 'shop', `pod/${name}`);
const mark = (name: string) =>
  jsonpath(`.metadata.annotations['${ANNOTATION.replaceAll('.', '\\.')}']`, '-n', 'shop', `pod/${name}`);

/** An HTTP request from client to server; whether a packet on the wire between the nodes shows it. */
async function isSeenOnTheWire(path: string): Promise<boolean> {
  const wire = await b.machine.capture();
  const answer = await inShop(
    'exec',
    'client',
    '--',
    'curl',
    '-sS',
    '-m',
    '10',
    `http://${await addressOf('server')}:8080${path}`,
  );
  await wire.stop();
  expect((JSON.parse(answer) as { path: string }).path).toBe(path);
  return wire.contains(path);
}

async function label(mode: string | null): Promise<void> {
  await kubectl('label', 'namespace', 'shop', mode === null ? `${MODE}-` : `${MODE}=${mode}`, '--overwrite');
  for (const name of ['client', 'server', 'app'])
    await waitFor(
      `the annotation of ${name}`,
      async () => (await mark(name)) === (mode === null ? '' : 'enabled'),
      PATIENCE,
    );
}

/** What the agents wrote about connections, newest last. */
async function accessLog(): Promise<Readonly<Record<string, unknown>>[]> {
  const text = await inSystem('logs', '-l', 'app.kubernetes.io/name=culvert-agent', '--tail=-1');
  return text
    .split('\n')
    .filter((line) => line.includes('src.identity'))
    .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
}

/** Short, long and streaming connections from client to app, until `stop`. */
class Load {
  readonly #process: ChildProcessWithoutNullStreams;
  #output = '';

  private constructor(process: ChildProcessWithoutNullStreams) {
    this.#process = process;
    for (const stream of [process.stdout, process.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text;
      });
  }

  static async start(): Promise<Load> {
    const { binaries, kubeconfig } = cluster.plane;
    const program = ['node', 'dist/test/support/load-client.js', await addressOf('app')];
    const args = ['-n', 'shop', 'exec', '-i', 'client', '--', ...program];
    const load = new Load(spawn(binaries.kubectl, args, { env: { ...process.env, KUBECONFIG: kubeconfig } }));
    await waitFor('the load', async () => load.#output.includes('started'), PATIENCE);
    return load;
  }

  async stop(): Promise<LoadReport> {
    const ended = once(this.#process, 'close');
    this.#process.stdin.write('stop\n');
    await ended;
    const line = this.#output.split('\n').find((each) => each.startsWith('{'));
    if (line === undefined) throw new Error(`the load said: ${this.#output.slice(-2000)}`);
    return JSON.parse(line) as LoadReport;
  }
}

const failures = (report: LoadReport) =>
  Object.entries(report).flatMap(([kind, counts]) =>
    counts.failedConnections + counts.failedRequests === 0 ? [] : [`${kind} ${JSON.stringify(counts)}`],
  );

const agents = () => named('-n', SYSTEM, 'pods', '-l', 'app.kubernetes.io/name=culvert-agent');
const crds = async () =>
  (await named('crds')).filter((name) => /istio\.io|gateway\.networking/.test(name)).length;
const users = () =>
  Promise.all([named('-n', 'shop', 'authorizationpolicies'), named('-n', 'shop', 'httproutes')]);
const caSecret = () => jsonpath('.data', '-n', SYSTEM, 'secret/culvert-ca-secret');

test('install: CRDs, agents and controllers are there and ready; helm test; nothing of another owner is touched', async () => {
  const before = await jsonpath('.metadata.generation', 'crd', FOREIGN);
  await install();
  expect(await crds()).toBe(17);
  expect(await jsonpath('.metadata.generation', 'crd', FOREIGN)).toBe(before);
  expect(await jsonpath('.metadata.labels', 'crd', FOREIGN)).not.toContain('culvert');
  expect((await agents()).length).toBe(2);
  await helm('test', 'culvert', '--timeout', '5m');
  await cluster.plane.apply(POLICY, ROUTE);
  expect(await isSeenOnTheWire('/before')).toBe(true);
}, 600_000);

test('a label: running pods are in the mesh, encrypted, with their identities in the access log', async () => {
  await label('ambient');
  await waitFor('the wire to be encrypted', async () => !(await isSeenOnTheWire('/labelled')), PATIENCE);
  const line = () =>
    accessLog().then((lines) =>
      lines.find((each) => each['src.identity'] === 'spiffe://cluster.local/ns/shop/sa/client'),
    );
  await waitFor('the access log', async () => (await line()) !== undefined, PATIENCE);
  expect(await line()).toMatchObject({ 'dst.identity': 'spiffe://cluster.local/ns/shop/sa/server' });
}, 120_000);

test('without the label they are plain again', async () => {
  await label(null);
  expect(await isSeenOnTheWire('/plain')).toBe(true);
  await label('ambient');
  await waitFor('the wire to be encrypted', async () => !(await isSeenOnTheWire('/again')), PATIENCE);
}, 120_000);

test('an upgrade under load: every agent and controller is another, and no request has failed', async () => {
  const before = await agents();
  const load = await Load.start();
  await helm(
    'upgrade',
    'culvert',
    CHART,
    '--set-string',
    'agent.podAnnotations.v=2,controller.podAnnotations.v=2',
    '--wait',
    '--timeout',
    '5m',
  );
  const wasEncrypted = !(await isSeenOnTheWire('/upgraded'));
  const report = await load.stop();
  process.stderr.write(`upgrade under load: ${JSON.stringify(report)}\n`);
  expect(failures(report)).toEqual([]);
  for (const counts of Object.values(report)) expect(counts.requests).toBeGreaterThan(1);
  expect(wasEncrypted).toBe(true);
  await waitFor(
    'the agents before to be gone',
    async () => !(await agents()).some((name) => before.includes(name)),
    PATIENCE,
  );
  const restarts = await inSystem(
    'get',
    'pods',
    '-o',
    'jsonpath={.items[*].status.containerStatuses[*].restartCount}',
  );
  expect(restarts.split(' ').every((count) => count === '0')).toBe(true);
}, 600_000);

test('a rollback: the mesh goes on, CRDs and what users have declared stay', async () => {
  await helm('rollback', 'culvert', '1', '--wait', '--timeout', '5m');
  expect(await crds()).toBe(17);
  expect(await jsonpath('.metadata.generation', 'crd', FOREIGN)).toBe('1');
  expect(await users()).toEqual([
    ['authorizationpolicy.security.istio.io/all'],
    ['httproute.gateway.networking.k8s.io/web'],
  ]);
  expect(await isSeenOnTheWire('/rolled-back')).toBe(false);
}, 600_000);

let authority: string;

test('uninstall: no program, pin, socket, annotation, taint or root is left; CRDs, objects and the CA are', async () => {
  authority = await caSecret();
  await helm('uninstall', 'culvert', '--wait', '--timeout', '5m');
  for (const node of [a, b]) expect(await leftovers(node)).toEqual([]);
  expect(await named('-n', SYSTEM, 'secrets')).not.toContain('secret/culvert-webhook-ca');
  expect(await inSystem('get', 'all,roles,rolebindings,networkpolicies,pdb,leases', '-o', 'name')).toBe('');
  const everywhere = [
    'clusterroles,clusterrolebindings,validatingadmissionpolicies',
    'validatingwebhookconfigurations',
  ];
  for (const kinds of everywhere)
    expect((await named(kinds)).filter((name) => name.includes('culvert'))).toEqual([]);
  expect(await named('configmaps', '-A', '--field-selector', 'metadata.name=culvert-ca-root-cert')).toEqual(
    [],
  );
  for (const name of ['client', 'server', 'app']) expect(await mark(name)).toBe('');
  expect(await jsonpath('.items[*].spec.taints', 'nodes')).not.toContain('culvert');
  expect(await jsonpath('.items[*].metadata.annotations', 'nodes')).not.toContain('culvert');
  expect(await isSeenOnTheWire('/uninstalled')).toBe(true);

  expect(await crds()).toBe(17);
  expect((await users()).flat().length).toBe(2);
  expect(await caSecret()).toBe(authority);
}, 600_000);

/** What of the mesh is on a node. */
async function leftovers(node: ClusterNode): Promise<string[]> {
  const { bpffsDir, kubepods, stateDir } = node.machine;
  const bpf = new Bpf();
  const programs = CGROUP_HOOKS.flatMap((hook) =>
    bpf.attached(kubepods, hook).map(({ name }) => `program ${name}`),
  );
  const pins = existsSync(join(bpffsDir, 'culvert')) ? ['pins'] : [];
  const run = join(stateDir, 'host/run/culvert');
  const files = existsSync(run) ? readdirSync(run).map((name) => `file ${name}`) : [];
  const sockets: string[] = [];
  for (const netns of readdirSync('/run/netns').filter((name) =>
    name.startsWith(`${node.machine.netns}-k`),
  )) {
    const path = `/run/netns/${netns}`;
    const asked = node.machine.output(['nsenter', `--net=${path}`, 'ss', '-Hlntu']);
    const listening = await asked.catch((error: unknown) => {
      if (existsSync(path)) throw error;
      return ''; // its pod has ended meanwhile
    });
    if (/:150(01|06|08|53)\s/.test(listening)) sockets.push(`sockets in ${netns}: ${listening}`);
  }
  return [...programs, ...pins, ...files, ...sockets];
}

test('installed again: the pods of the labelled namespace are in the mesh, under the same authority', async () => {
  await install('--set', 'uninstall.timeoutSeconds=10');
  for (const name of ['client', 'server'])
    await waitFor(`the annotation of ${name}`, async () => (await mark(name)) === 'enabled', PATIENCE);
  await waitFor('the wire to be encrypted', async () => !(await isSeenOnTheWire('/reinstalled')), PATIENCE);
  expect(await caSecret()).toBe(authority);
}, 600_000);

test('a node that is out of reach is named, and does not hold the removal up', async () => {
  await b.crash();
  const isReady = () => jsonpath('.status.conditions[?(@.type=="Ready")].status', 'node/b');
  await waitFor('node b to be given up', async () => (await isReady()) !== 'True', {
    timeoutMs: 180_000,
    intervalMs: 500,
  });
  const { stderr } = await cluster.plane.runBoth(cluster.plane.binaries.helm, [
    'uninstall',
    'culvert',
    '-n',
    SYSTEM,
  ]);
  expect(stderr).toMatch(/NOT DONE: nodes released by their agents: b: no word of the agent within 10 s/);
  expect(await leftovers(a)).toEqual([]);
  for (const name of ['client', 'server']) expect(await mark(name)).toBe('');
}, 600_000);
