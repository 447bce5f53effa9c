import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { waitFor } from '../lab/index.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';

// The controller as a process, `--source kubernetes`, as a user that may only list and watch.

const PATIENCE = { timeoutMs: 60_000, intervalMs: 50 };
const main = fileURLToPath(new URL('../../control/main.js', import.meta.url));

let plane: ControlPlane;
let kubeconfig: string;
let controller: ChildProcess | null = null;
let monitoring: string;
let runs = 0;

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  const rbac = 'rbac.authorization.k8s.io';
  const verbs = ['list', 'watch'];
  const rules = [
    { apiGroups: [''], resources: ['namespaces', 'nodes', 'serviceaccounts', 'pods', 'services'], verbs },
    { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs },
    {
      apiGroups: ['networking.istio.io', 'security.istio.io', 'telemetry.istio.io'],
      resources: ['*'],
      verbs,
    },
    { apiGroups: [''], resources: ['secrets', 'configmaps'], verbs: ['create', 'get', 'update'] },
  ];
  const role = { apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name: 'controller' }, rules };
  const roleRef = { apiGroup: rbac, kind: 'ClusterRole', name: 'controller' };
  const subjects = [{ apiGroup: rbac, kind: 'User', name: 'controller' }];
  const binding = { ...role, kind: 'ClusterRoleBinding', rules: undefined, roleRef, subjects };
  const own = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'culvert-system' } };
  const shop = {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } },
  };
  await plane.apply(role, binding, own, shop);
  kubeconfig = plane.kubeconfigOf('controller', plane.credentials({ user: 'controller' }));
}, 3_600_000);

afterAll(() => plane.close());

afterEach(async () => {
  if (controller === null || controller.exitCode !== null) return;
  const exited = once(controller, 'exit');
  controller.kill('SIGTERM');
  await exited;
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

async function start(): Promise<void> {
  const port = await freePort();
  monitoring = `http://127.0.0.1:${port}`;
  const listen = [
    '--listen',
    '127.0.0.1:0',
    '--admin-listen',
    '127.0.0.1:0',
    '--monitoring-listen',
    `127.0.0.1:${port}`,
  ];
  const state = join(plane.ca.folder, `controller-${runs++}`);
  const args = [main, '--source', 'kubernetes', '--kubeconfig', kubeconfig, '--state', state, ...listen];
  controller = spawn(process.execPath, args, {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
}

const get = async (path: string) => {
  const answer = await fetch(`${monitoring}${path}`);
  return { status: answer.status, text: await answer.text() };
};
const ready = () => waitFor('readiness', async () => (await get('/healthz/ready')).status === 200, PATIENCE);
const metric = async (name: string) => {
  const line = (await get('/metrics')).text.split('\n').find((one) => one.startsWith(`${name} `));
  return line === undefined ? Number.NaN : Number(line.split(' ').at(-1));
};
const addresses = () => metric('culvert_xds_resources{type="istio.workload.Address"}');
const policies = () => metric('culvert_xds_resources{type="istio.security.Authorization"}');

test('serves what the cluster has, kinds of CRDs when they come, and goes on while the API server is away', async () => {
  await start();
  await ready();
  const before = await addresses();
  await plane.apply({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'cart', namespace: 'shop' },
    spec: { ports: [{ port: 80 }], selector: { app: 'cart' } },
  });
  await waitFor('the service', async () => (await addresses()) === before + 1, PATIENCE);
  expect(await metric('culvert_source_age_seconds{source="kubernetes/Pod"}')).toBeLessThan(100);
  const policiesBefore = await policies();

  const schema = { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } };
  const names = {
    kind: 'AuthorizationPolicy',
    plural: 'authorizationpolicies',
    singular: 'authorizationpolicy',
  };
  const group = 'security.istio.io';
  await plane.apply({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `authorizationpolicies.${group}` },
    spec: {
      group,
      names,
      scope: 'Namespaced',
      versions: [{ name: 'v1', served: true, storage: true, schema }],
    },
  });
  const policy = {
    apiVersion: `${group}/v1`,
    kind: 'AuthorizationPolicy',
    metadata: { name: 'nobody', namespace: 'shop' },
    spec: {},
  };
  await waitFor('the CRD', () => plane.apply(policy).then(() => true), PATIENCE);
  await waitFor('the policy', async () => (await policies()) === policiesBefore + 1, PATIENCE);

  await plane.stopComponent('apiServer', 'SIGKILL');
  await waitFor('a problem', async () => (await metric('culvert_manifest_problems')) > 0, PATIENCE);
  expect([await addresses(), await policies()]).toEqual([before + 1, policiesBefore + 1]);
  await plane.startComponent('apiServer');
  await plane.kubectl('delete', 'service', 'cart', '-n', 'shop');
  await waitFor('the end of the service', async () => (await addresses()) === before, PATIENCE);
  await waitFor('no problem', async () => (await metric('culvert_manifest_problems')) === 0, PATIENCE);
}, 180_000);

test('that starts while the API server is away is not ready, says why, and serves nothing before it has seen all', async () => {
  await plane.stopComponent('apiServer', 'SIGKILL');
  await start();
  await waitFor(
    'what is awaited',
    async () => {
      const { status, text } = await get('/healthz/ready');
      return status === 503 && /CA: .*(ECONNREFUSED|hang up|TLS)/.test(text);
    },
    PATIENCE,
  );
  await plane.startComponent('apiServer');
  await ready();
}, 180_000);
