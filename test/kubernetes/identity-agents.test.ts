import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { waitFor } from '../lab/index.js';
import { type Cluster, type ClusterNode, startCluster } from './cluster.js';
import { ClusterMesh } from './mesh.js';

// Agents as pods, one on a node whose clock is an hour late: identities by projected tokens, and another root while HTTP goes on.

const PATIENCE = { timeoutMs: 90_000, intervalMs: 100 };
const SECRET = '/api/v1/namespaces/culvert-system/secrets/culvert-ca-secret';

let cluster: Cluster;
let mesh: ClusterMesh;
let nodes: readonly [ClusterNode, ClusterNode];

beforeAll(async () => {
  cluster = await startCluster({
    nodes: ['a'],
    onProgress: (line) => void process.stderr.write(`${line}\n`),
  });
  nodes = [cluster.nodes[0]!, await cluster.addNode('late', { clockSkewSeconds: -3600 })];
  await cluster.waitForNode('late');
  mesh = await ClusterMesh.start(cluster, { controllerFlags: ['--root-overlap', '10s'] });
  const labels = { 'istio.io/dataplane-mode': 'ambient' };
  await cluster.plane.apply(
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop', labels } },
    ...nodes.flatMap(({ name }) => [account(name), pod(name)]),
  );
  for (const { name } of nodes) await inShop('wait', '--for=condition=Ready', `pod/${name}`, '--timeout=60s');
}, 3_600_000);

afterAll(() => cluster?.close());

const account = (name: string): object => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: { name, namespace: 'shop' },
});
/** Server and client at once. */
const pod = (name: string): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'shop' },
  spec: {
    nodeName: name,
    serviceAccountName: name,
    terminationGracePeriodSeconds: 1,
    containers: [{ name: 'main', image: 'culvert-test/http-echo' }],
  },
});
const inShop = (...args: string[]) => cluster.kubectl('-n', 'shop', ...args);
const addressOf = (name: string) => inShop('get', `pod/${name}`, '-o', 'jsonpath={.status.podIP}');

/** Between the two, on new connections; throws where it fails. */
async function bothWays(): Promise<void> {
  const [a, b] = [await addressOf(nodes[0].name), await addressOf(nodes[1].name)];
  for (const [from, to, own] of [
    [nodes[0].name, b, a],
    [nodes[1].name, a, b],
  ] as const) {
    const text = await inShop('exec', from, '--', 'curl', '-sS', '-m', '10', `http://${to}:8080/`);
    expect((JSON.parse(text) as { peer: { address: string } }).peer.address).toBe(own);
  }
}

/** Of the certificates that a node's agent has for pods of the namespace. */
function serialsOn(node: ClusterNode): string {
  const dump = JSON.stringify(JSON.parse(mesh.admin(node, '/config_dump')));
  const found = [...dump.matchAll(/"identity":"spiffe:[^"]*\/ns\/shop\/[^{}]*?"serial":"([0-9A-F]+)"/g)];
  return found.map(([, serial]) => serial).join();
}

test('an agent an hour late has its identity, and is understood, as every other', async () => {
  await waitFor(
    'HTTP through mTLS, both ways',
    () =>
      bothWays().then(
        () => true,
        () => false,
      ),
    PATIENCE,
  );
  await waitFor(
    'it in the access logs',
    async () => {
      const lines = (await Promise.all(nodes.map((node) => mesh.accessLog(node)))).flat();
      const seen = new Set(lines.map((line) => line['src.identity']));
      return nodes.every(({ name }) => seen.has(`spiffe://cluster.local/ns/shop/sa/${name}`));
    },
    PATIENCE,
  );
}, 180_000);

test('one root follows another, and no request fails', async () => {
  const certificate = async () =>
    (await cluster.plane.api.get<{ data: Record<string, string> }>(SECRET)).data['ca-cert.pem'];
  const bundle = async () =>
    (await cluster.plane.api.get<{ data: Record<string, string> }>(SECRET)).data['root-cert.pem'];
  const [before, serials] = [await certificate(), nodes.map(serialsOn)];
  expect(serials.every((serial) => serial !== '')).toBe(true);
  await cluster.kubectl(
    ...['annotate', 'secret', 'culvert-ca-secret', '-n', 'culvert-system', 'culvert.io/rotate-root=now'],
  );
  let rounds = 0;
  const failures: string[] = [];
  await waitFor(
    'the third step',
    async () => {
      await bothWays().catch((error: unknown) => failures.push(`round ${rounds}: ${String(error)}`));
      rounds++;
      return (await certificate()) !== before && (await bundle()) === (await certificate());
    },
    { ...PATIENCE, timeoutMs: 150_000 },
  );
  await waitFor(
    'new certificates',
    () => nodes.every((node, index) => serialsOn(node) !== serials[index]),
    PATIENCE,
  );
  await bothWays();
  expect(failures).toEqual([]);
  expect(rounds).toBeGreaterThan(5);
}, 300_000);
