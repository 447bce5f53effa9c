import { type ExecFileException, execFile } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { waitFor } from '../lab/index.js';
import { type Cluster, startCluster } from './index.js';

// culvertctl from outside of the cluster, with the kubeconfig of one who has nothing but the chart's Role: agents and controllers through
// `kubectl port-forward`, which lab kubelets serve.

const SYSTEM = 'culvert-system';
const PATIENCE = { timeoutMs: 60_000, intervalMs: 500 };
const program = join(packageRoot(), 'dist/cli/main.js');

let cluster: Cluster;
/** Of one who may what the Role culvertctl allows. */
let operator: string;

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function ctl(...argv: string[]): Promise<Ran> {
  return ctlIn(operator, ...argv);
}

function ctlIn(kubeconfig: string, ...argv: string[]): Promise<Ran> {
  const env = {
    ...process.env,
    NODE_OPTIONS: '',
    CULVERTCTL_KUBECONFIG: kubeconfig,
    CULVERTCTL_KUBECTL: cluster.plane.binaries.kubectl,
  };
  return new Promise((resolve) => {
    const done = (error: ExecFileException | null, out: string, err: string) =>
      resolve({ code: Number(error?.code ?? 0), out, err });
    execFile(process.execPath, [program, ...argv], { env, timeout: 60_000 }, done);
  });
}

beforeAll(async () => {
  cluster = await startCluster({ nodes: ['a', 'b'] });
  const chart = join(packageRoot(), 'charts/culvert');
  await cluster.plane.helm(
    ...['install', 'culvert', chart, '-n', SYSTEM, '--create-namespace', '--wait', '--timeout', '110s'],
  );
  const user = cluster.plane.credentials({ user: 'jane' });
  operator = cluster.plane.kubeconfigOf('jane', user);
  await cluster.kubectl(
    ...['create', 'rolebinding', 'jane-culvertctl', '-n', SYSTEM, '--role=culvertctl', '--user=jane'],
  );
}, 3_600_000);

afterAll(() => cluster?.close());

async function agentPodOn(node: string): Promise<string> {
  const label = 'app.kubernetes.io/name=culvert-agent';
  return await cluster.kubectl(
    ...['get', 'pods', '-n', SYSTEM, '-l', label, '--field-selector', `spec.nodeName=${node}`],
    ...['-o', 'jsonpath={.items[0].metadata.name}'],
  );
}

test('status: every agent and controller, as Kubernetes has its pod and as it says itself', async () => {
  await waitFor('all to be well', async () => (await ctl('status')).code === 0, PATIENCE);
  const { out } = await ctl('status');
  expect(out).toMatch(/^a +culvert-agent-\S+ +yes +synced +0 /m);
  expect(out).toMatch(/^b +culvert-agent-\S+ +yes +synced +0 /m);
  expect([...out.matchAll(/^culvert-controller-\S+ +[ab] +yes +[0-2] +0 /gm)]).toHaveLength(2);
  const { agents, controllers, wantedAgents } = JSON.parse((await ctl('status', '-o', 'json')).out) as {
    agents: { pod: { node: string }; dump: { xds: { isConnected: boolean } } }[];
    controllers: { status: { agents: unknown[] } }[];
    wantedAgents: number;
  };
  expect(wantedAgents).toBe(2);
  expect(agents.map(({ pod, dump }) => [pod.node, dump.xds.isConnected])).toEqual([
    ['a', true],
    ['b', true],
  ]);
  expect(controllers.reduce((sum, { status }) => sum + status.agents.length, 0)).toBe(2);
}, 180_000);

test('commands ask the agent of --node: a node, its pod, or any pod there', async () => {
  const pod = await agentPodOn('b');
  for (const where of ['b', pod, `${SYSTEM}/${pod}`]) {
    const { code, out } = await ctl('log', '--node', where);
    expect({ code, out }).toEqual({ code: 0, out: 'level is info\n' });
  }
  expect((await ctl('log', 'debug', '--node', 'b')).out).toBe('level is debug\n');
  expect((await ctl('log', '--node', 'a')).out).toBe('level is info\n');
  expect((await ctl('bpf', '--node', 'a')).out).toMatch(/^sk_lookup +yes$/m);
  expect((await ctl('pods', '--node', 'a')).out).toMatch(/^NAMESPACE +POD +STATE/);
  const everywhere = await ctl('pods');
  expect(everywhere.code).toBe(0);
  expect(everywhere.out).toMatch(/^NODE +NAMESPACE +POD +STATE/);
  expect(everywhere.out).toMatch(
    /^[ab] +culvert-system +culvert-\S+ +plain +\S+ +(host network|namespace not labelled|label none)$/m,
  );
  expect((await ctl('connections', '--node', 'a', '-o', 'json')).out).toBe('[]\n');
  expect((await ctl('cert', '--node', 'a')).code).toBe(0);
  expect(await ctl('status', '--node', 'a')).toMatchObject({
    out: expect.stringMatching(/^node +a +trust domain cluster\.local$/m),
  });
  // Every agent gives the same answer.
  expect((await ctl('proxy', 'config', 'services')).out).toMatch(/^default +kubernetes\.default\.svc/m);
}, 180_000);

test('who is meant has to be said, and who is not there is said', async () => {
  expect(await ctl('bpf')).toMatchObject({ code: 1, err: expect.stringMatching(/--node says: a, b\n$/) });
  expect(await ctl('pods', '--node', 'c')).toMatchObject({
    code: 1,
    err: expect.stringContaining('c in culvert-system'),
  });
  expect(await ctlIn(cluster.plane.kubeconfig, 'pods', '--node', 'a', '-i', 'elsewhere')).toMatchObject({
    code: 1,
    err: expect.stringContaining('namespace elsewhere'),
  });
  expect(await ctl('pods', '--node', 'a', '--kubectl', '/nowhere/kubectl')).toMatchObject({
    code: 1,
    err: expect.stringContaining('/nowhere/kubectl is not found'),
  });
  const nobody = cluster.plane.kubeconfigOf('nobody', cluster.plane.credentials({ user: 'nobody' }));
  expect(await ctlIn(nobody, 'pods', '--node', 'a')).toMatchObject({
    code: 1,
    err: expect.stringMatching(/forbidden.*cannot list resource "pods"/i),
  });
}, 120_000);

test('doctor: Kubernetes, what it serves, the pods of the mesh, NetworkPolicies in the way, what is not in force as written, and the kernel of a node', async () => {
  const doctor = async () => {
    const { out } = await ctl('doctor', '--node', 'a', '-o', 'json');
    return JSON.parse(out) as { check: string; verdict: string; found: string }[];
  };
  const verdicts = Object.fromEntries((await doctor()).map(({ check, verdict }) => [check, verdict]));
  expect(verdicts).toMatchObject({
    Kubernetes: 'ok',
    'constrained impersonation': 'ok',
    ValidatingAdmissionPolicy: 'ok',
    agents: 'ok',
    controllers: 'ok',
    NetworkPolicies: 'ok',
    'capture on a': 'ok',
  });
  const namespace = 'shop';
  await cluster.plane.apply(
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { 'istio.io/dataplane-mode': 'ambient' } },
    },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'web', namespace },
      spec: { containers: [{ name: 'web', image: 'pause' }] },
    },
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'web-only', namespace },
      spec: { podSelector: {}, policyTypes: ['Ingress'], ingress: [{ ports: [{ port: 8080 }] }] },
    },
    {
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'only-get', namespace },
      spec: { rules: [{ to: [{ operation: { methods: ['GET'] } }] }] },
    },
  );
  await waitFor(
    'the findings',
    async () => {
      const findings = await doctor();
      const has = (wanted: string, as: string, text: string) =>
        findings.some(
          ({ check, verdict, found }) => check === wanted && verdict === as && found.includes(text),
        );
      return (
        has('NetworkPolicies', 'fails', 'shop/web-only') &&
        has(
          'as written',
          'warning',
          'AuthorizationPolicy/shop/only-get: spec.rules[0].to[0].operation.methods',
        )
      );
    },
    PATIENCE,
  );
}, 180_000);

test('a policy that selects no pod is in force, and says so in its status, in status and in doctor', async () => {
  const labels = { app: 'no-such-app' };
  await cluster.plane.apply({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'typo', namespace: 'default' },
    spec: { selector: { matchLabels: labels }, action: 'DENY', rules: [{}] },
  });
  const message = async () => {
    const path = 'jsonpath={.status.conditions[?(@.type=="ZtunnelAccepted")]}';
    return await cluster.kubectl('get', 'authorizationpolicy', 'typo', '-n', 'default', '-o', path);
  };
  await waitFor('the status', async () => /selects no pod at present/.test(await message()), PATIENCE);
  expect(JSON.parse(await message())).toMatchObject({ status: 'True', reason: 'Accepted' });
  // The other replica has seen it at another moment.
  const told = async (command: string) => (await ctl(command)).out.includes('selects no pod at present');
  await waitFor('status', () => told('status'), PATIENCE);
  await waitFor('doctor', () => told('doctor'), PATIENCE);
}, 180_000);
