import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { waitFor } from '../lab/index.js';
import { type Cluster, type ClusterNode, startCluster } from './cluster.js';
import { ClusterMesh } from './mesh.js';

// Agents as pods on lab kubelets, `--source kubernetes`: from a label on a namespace to HTTP between two nodes through mTLS.

const PATIENCE = { timeoutMs: 60_000, intervalMs: 50 };
const ANNOTATION = 'ambient.istio.io/redirection';
const MODE = 'istio.io/dataplane-mode';

let cluster: Cluster;
let mesh: ClusterMesh;
let a: ClusterNode;
let b: ClusterNode;

beforeAll(async () => {
  cluster = await startCluster({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  [a, b] = cluster.nodes as [ClusterNode, ClusterNode];
  mesh = await ClusterMesh.start(cluster);
  await cluster.plane.apply(
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } },
    account('front'),
    account('back'),
    pod('client', 'a', 'front', { image: 'busybox', command: ['sleep', '1000000'] }),
    pod('server', 'b', 'back', { image: 'culvert-test/http-echo' }),
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'server', namespace: 'shop' },
      spec: { selector: { app: 'server' }, ports: [{ port: 80, targetPort: 8080 }] },
    },
  );
  await inShop('wait', '--for=condition=Ready', 'pod/client', 'pod/server', '--timeout=60s');
}, 3_600_000);

afterAll(() => cluster?.close());

function account(name: string): object {
  return { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace: 'shop' } };
}

function pod(name: string, nodeName: string, serviceAccountName: string, container: object): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'shop', labels: { app: name } },
    spec: {
      nodeName,
      serviceAccountName,
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'main', ...container }],
    },
  };
}

const inShop = (...args: string[]) => cluster.kubectl('-n', 'shop', ...args);
const jsonpath = (what: string, path: string) => inShop('get', what, '-o', `jsonpath={${path}}`);
const mark = (name: string) =>
  jsonpath(`pod/${name}`, `.metadata.annotations['${ANNOTATION.replaceAll('.', '\\.')}']`);
const stateOf = (node: ClusterNode, name: string) => mesh.pods(node).find((one) => one.name === name)?.state;
const get = async (url: string, from = 'client') =>
  JSON.parse(await inShop('exec', from, '--', 'curl', '-sS', '-m', '10', url)) as {
    peer: { address: string };
  };

test('a label on the namespace takes running pods into the mesh: HTTP through mTLS, with the right identities', async () => {
  expect([stateOf(a, 'client'), stateOf(b, 'server'), await mark('client')]).toEqual(['plain', 'plain', '']);
  const address = await jsonpath('pod/server', '.status.podIP');
  await get(`http://${address}:8080/`);

  await cluster.kubectl('label', 'namespace', 'shop', `${MODE}=ambient`);
  for (const [name, node] of [
    ['client', a],
    ['server', b],
  ] as const) {
    await waitFor(`the annotation of ${name}`, async () => (await mark(name)) === 'enabled', PATIENCE);
    expect(stateOf(node, name)).toBe('captured'); // never before it is
  }
  const wire = await b.machine.capture();
  const vip = await jsonpath('service/server', '.spec.clusterIP');
  const clientAddress = await jsonpath('pod/client', '.status.podIP');
  for (const url of [`http://${address}:8080/by-address`, `http://${vip}/by-service`]) {
    await waitFor(
      `${url} through the mesh`,
      async () => (await get(url)).peer.address === clientAddress,
      PATIENCE,
    );
  }
  const through = async () =>
    (await mesh.accessLog(b)).filter(
      (line) => line['src.identity'] === 'spiffe://cluster.local/ns/shop/sa/front',
    );
  await waitFor('both in the access log', async () => (await through()).length >= 2, PATIENCE);
  for (const line of await through())
    expect(line).toMatchObject({
      'dst.identity': 'spiffe://cluster.local/ns/shop/sa/back',
      direction: 'inbound',
    });
  await wire.stop();
  expect(wire.contains('GET /')).toBe(false);
  expect((await wire.packets('tcp port 15008')).length).toBeGreaterThan(0);
}, 120_000);

test('without the label they are plain again, and not annotated', async () => {
  await cluster.kubectl('label', 'namespace', 'shop', `${MODE}-`);
  for (const [name, node] of [
    ['client', a],
    ['server', b],
  ] as const) {
    await waitFor(`${name} to be plain`, () => stateOf(node, name) === 'plain', PATIENCE);
    await waitFor(`no annotation of ${name}`, async () => (await mark(name)) === '', PATIENCE);
  }
  const wire = await b.machine.capture();
  await get(`http://${await jsonpath('pod/server', '.status.podIP')}:8080/in-clear`);
  await wire.stop();
  expect(wire.contains('GET /in-clear')).toBe(true);
}, 120_000);
