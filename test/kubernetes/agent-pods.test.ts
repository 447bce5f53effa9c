import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { waitFor } from '../lab/index.js';
import { type Cluster, type ClusterNode, startCluster } from './cluster.js';
import { ClusterMesh } from './mesh.js';

// Pods that come and go: addresses used again at once, nodes cut off, drained and removed, clocks that are an hour off.

/** 30 s; `npm run soak:kubernetes` has 5 minutes. */
const OUTAGE_MS = Number(process.env['CULVERT_OUTAGE_SECONDS'] ?? 30) * 1000;
const PATIENCE = { timeoutMs: 90_000, intervalMs: 100 };
const ECHO = 'culvert-test/http-echo';
const echo = join(packageRoot(), 'dist/test/support/http-echo.js');
/** Serves for two seconds more when it is asked to end. */
const POLITE = {
  image: 'busybox',
  command: ['sh', '-c', `trap 'sleep 2; kill $!; exit 0' TERM; ${process.execPath} ${echo} 8080 & wait`],
};
const identity = (account: string) => `spiffe://cluster.local/ns/shop/sa/${account}`;

let cluster: Cluster;
let mesh: ClusterMesh;
let a: ClusterNode;
let b: ClusterNode;
let c: ClusterNode;

beforeAll(async () => {
  cluster = await startCluster({
    nodes: ['a'],
    onProgress: (line) => void process.stderr.write(`${line}\n`),
  });
  await cluster.addNode('b', { reuseAddresses: true });
  await cluster.addNode('c');
  for (const name of ['b', 'c']) await cluster.waitForNode(name);
  [a, b, c] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
  mesh = await ClusterMesh.start(cluster);
  const labels = { 'istio.io/dataplane-mode': 'ambient' };
  await cluster.plane.apply(
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop', labels } },
    ...['front', 'one', 'two'].map((name) => ({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name, namespace: 'shop' },
    })),
    pod('client', 'a', { image: 'busybox', command: ['sleep', '1000000'] }, { serviceAccountName: 'front' }),
  );
  await isCaptured('client', a);
}, 3_600_000);

afterAll(() => cluster?.close());

function pod(
  name: string,
  nodeName: string,
  container: object,
  spec: object = {},
  labels: object = {},
): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'shop', labels: { app: name, ...labels } },
    spec: {
      nodeName,
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'main', ...container }],
      ...spec,
    },
  };
}

const inShop = (...args: string[]) => cluster.kubectl('-n', 'shop', ...args);
const stateOf = (node: ClusterNode, name: string) => mesh.pods(node).find((one) => one.name === name)?.state;
const isCaptured = (name: string, node: ClusterNode) =>
  waitFor(`${name} to be captured`, () => stateOf(node, name) === 'captured', PATIENCE);
const addressOf = (name: string) => inShop('get', 'pod', name, '-o', 'jsonpath={.status.podIP}');
const marked = (name: string) => inShop('get', 'pod', name, '-o', 'jsonpath={.metadata.annotations}');

/** Name of the pod that answers; '' where nobody does. */
function ask(url: string): string {
  try {
    return (JSON.parse(mesh.processIn(a, 'shop', 'client').curl(url)) as { name: string }).name;
  } catch {
    return '';
  }
}

test('an address that another pod has at once: whoever answers has shown its own identity, and never another', async () => {
  const named = (name: string) =>
    pod(name, 'b', { image: ECHO, env: [{ name: 'NAME', value: name }] }, { serviceAccountName: name });
  let address = '';
  for (const [next, last] of [
    ['one', 'two'],
    ['two', 'one'],
    ['one', 'two'],
    ['two', 'one'],
  ] as const) {
    await cluster.plane.apply(named(next));
    await waitFor('its address', async () => (await addressOf(next)) !== '', PATIENCE);
    if (address !== '') expect(await addressOf(next)).toBe(address);
    address = await addressOf(next);
    await waitFor(`an answer of ${next}`, () => ask(`http://${address}:8080/`) === next, PATIENCE);
    expect(ask(`http://${address}:8080/`)).not.toBe(last);
    void inShop('delete', 'pod', next, '--wait=false');
    const until = performance.now() + 1_500; // and all the while it goes
    while (performance.now() < until) expect(['', next]).toContain(ask(`http://${address}:8080/`));
    await waitFor(
      'its end',
      async () => (await inShop('get', 'pods', '-o', 'name')) === 'pod/client\n',
      PATIENCE,
    );
  }
  // What reached an application came by a tunnel to its own identity.
  const lines = (await mesh.accessLog(b)).filter((line) => line['src.identity'] === identity('front'));
  expect(lines.length).toBeGreaterThan(7);
  for (const line of lines) expect(line['dst.identity']).toBe(identity(String(line['dst.workload'])));
}, 300_000);

test('hostNetwork is left alone, what has failed is nobody, what terminates is drained with GOAWAY', async () => {
  await cluster.plane.apply(
    pod('host', 'a', { image: 'busybox', command: ['sleep', '1000000'] }, { hostNetwork: true }),
    pod(
      'failing',
      'a',
      { image: 'busybox', command: ['sh', '-c', 'sleep 1; exit 3'] },
      { restartPolicy: 'Never' },
    ),
    pod('polite', 'b', POLITE, { terminationGracePeriodSeconds: 5 }),
  );
  await waitFor('host', () => stateOf(a, 'host') === 'plain', PATIENCE);
  await isCaptured('polite', b);
  const url = `http://${await addressOf('polite')}:8080/`;
  await waitFor(
    'an answer',
    () => mesh.processIn(a, 'shop', 'client').curl(url).includes('"path"'),
    PATIENCE,
  );
  await waitFor(
    'failure',
    async () => (await inShop('get', 'pod', 'failing', '-o', 'jsonpath={.status.phase}')) === 'Failed',
    PATIENCE,
  );
  await waitFor('it to be nobody', () => stateOf(a, 'failing') === undefined, PATIENCE);
  expect(await marked('host')).not.toContain('redirection');
  // While it terminates it is served as before.
  const deleted = inShop('delete', 'pod', 'polite', '--timeout=60s');
  await sleep(500);
  expect(mesh.processIn(a, 'shop', 'client').curl(url)).toContain('"path"');
  await deleted.catch((error: Error) => {
    throw new Error(`${error.message}\n${readFileSync(b.logFile, 'utf8').slice(-2000)}`);
  });
  await waitFor('its tunnels to be gone', () => !/"polite"/.test(mesh.admin(a, '/config_dump')), PATIENCE);
  await inShop('delete', 'pod', 'host', 'failing', '--force', '--grace-period=0');
}, 180_000);

test(
  'a node that cannot reach the API server goes on, with pods that come and go elsewhere; a node that is drained and removed is missed by nobody',
  async () => {
    const labels = { app: 'web' };
    const container = {
      ...{ name: 'main', ...POLITE },
      readinessProbe: { httpGet: { port: 8080, path: '/' }, periodSeconds: 1 },
    };
    const affinity = {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: ['b', 'c'] }] },
          ],
        },
      },
    };
    await cluster.plane.apply(
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'web', namespace: 'shop' },
        spec: {
          replicas: 3,
          selector: { matchLabels: labels },
          template: {
            metadata: { labels },
            spec: { affinity, terminationGracePeriodSeconds: 5, containers: [container] },
          },
        },
      },
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'web', namespace: 'shop' },
        spec: { selector: labels, ports: [{ port: 80, targetPort: 8080 }] },
      },
    );
    await inShop('rollout', 'status', 'deployment/web', '--timeout=90s');
    const url = `http://${await inShop('get', 'service', 'web', '-o', 'jsonpath={.spec.clusterIP}')}/`;
    const client = mesh.processIn(a, 'shop', 'client');
    const answers = () => client.curl(url).includes('"path"');
    await waitFor('the service', answers, PATIENCE);

    // From node a and its pods to the API server nothing passes any more.
    const { machine } = cluster.plane;
    const rules = ['forward', 'output'].map(
      (hook) =>
        `chain ${hook} { type filter hook ${hook} priority 0; ip daddr ${machine.ip} tcp dport 6443 drop; }`,
    );
    await a.machine.output(['nft', '-f', '-'], { input: `table inet cut {\n${rules.join('\n')}\n}\n` });
    const until = performance.now() + OUTAGE_MS;
    const roll = async () => {
      do {
        await inShop('rollout', 'restart', 'deployment/web');
        await inShop('rollout', 'status', 'deployment/web', '--timeout=90s');
      } while (performance.now() < until);
    };
    const rolled = roll();
    let asked = 0;
    while (performance.now() < until) {
      expect(answers()).toBe(true);
      asked++;
      await sleep(200);
    }
    await rolled;
    expect(asked).toBeGreaterThan(10);
    await a.machine.output(['nft', 'delete', 'table', 'inet', 'cut']);
    await inShop('label', 'pod', 'client', 'seen=again');
    await waitFor(
      'the agent to be ready',
      () => mesh.admin(a, '/healthz/ready', 15021).includes('ready'),
      PATIENCE,
    );

    const drained = cluster.kubectl(
      'drain',
      'c',
      '--ignore-daemonsets',
      '--delete-emptydir-data',
      '--force',
      '--timeout=90s',
    );
    let isOver = false;
    void drained.finally(() => {
      isOver = true;
    });
    while (!isOver) {
      expect(answers()).toBe(true);
      await sleep(100);
    }
    await drained;
    const before = (
      await inShop('get', 'pods', '-l', 'app=web', '-o', 'jsonpath={.items[*].spec.nodeName}')
    ).split(' ');
    expect(new Set(before)).toEqual(new Set(['b']));
    await c.crash();
    await cluster.kubectl('delete', 'node', 'c');
    cluster.nodes.splice(cluster.nodes.indexOf(c), 1);
    await waitFor(
      'nothing of node c to be known',
      () => !/"node": "c"/.test(mesh.admin(a, '/config_dump')),
      PATIENCE,
    );
    expect(answers()).toBe(true);
  },
  OUTAGE_MS + 270_000,
);

test('a node whose clock is an hour off, ahead or behind, is in the mesh as any other: certificates are dated back', async () => {
  await cluster.addNode('ahead', { clockSkewSeconds: 3600 });
  await cluster.addNode('late', { clockSkewSeconds: -3600 });
  await Promise.all(['ahead', 'late'].map((name) => cluster.waitForNode(name)));
  const [ahead, late] = cluster.nodes.slice(-2) as [ClusterNode, ClusterNode];
  await mesh.waitForAgents().catch((error: Error) => {
    throw new Error(`${mesh.agentLogFile(late).slice(-4000)}\n${error.message}`);
  });
  await cluster.plane.apply(pod('far', 'ahead', { image: ECHO }), pod('past', 'late', { image: ECHO }));
  await isCaptured('far', ahead);
  await isCaptured('past', late);
  const client = mesh.processIn(a, 'shop', 'client');
  const far = `http://${await addressOf('far')}:8080/`;
  await waitFor('an answer from ahead', () => client.curl(far).includes('"path"'), PATIENCE);
  const past = `http://${await addressOf('past')}:8080/`;
  await waitFor('an answer from behind', () => client.curl(past).includes('"path"'), PATIENCE);
}, 300_000);
