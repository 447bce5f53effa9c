import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { waitFor } from '../lab/index.js';
import { type Cluster, type ClusterNode, startCluster } from './cluster.js';
import { ClusterMesh } from './mesh.js';

// What becomes of a node's pods while API server, agent or other nodes are gone.

const PATIENCE = { timeoutMs: 60_000, intervalMs: 50 };
const AMBIENT = { 'istio.io/dataplane-mode': 'ambient' };

let cluster: Cluster;
let mesh: ClusterMesh;
let a: ClusterNode;
let b: ClusterNode;

beforeAll(async () => {
  cluster = await startCluster({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  [a, b] = cluster.nodes as [ClusterNode, ClusterNode];
  mesh = await ClusterMesh.start(cluster);
  await cluster.plane.apply(
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop', labels: AMBIENT } },
    pod('client', 'a', { image: 'busybox', command: ['sleep', '1000000'] }),
    pod('server', 'b', { image: 'culvert-test/http-echo' }),
    {
      ...pod(
        'plain',
        'a',
        { image: 'busybox', command: ['sleep', '1000000'] },
        { 'istio.io/dataplane-mode': 'none' },
      ),
    },
  );
  await inShop('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=60s');
  await waitFor(
    'capture',
    () => stateOf(a, 'client') === 'captured' && stateOf(b, 'server') === 'captured',
    PATIENCE,
  );
}, 3_600_000);

afterAll(() => cluster?.close());

function pod(name: string, nodeName: string, container: object, labels: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'shop', labels: { app: name, ...labels } },
    spec: { nodeName, terminationGracePeriodSeconds: 1, containers: [{ name: 'main', ...container }] },
  };
}

const inShop = (...args: string[]) => cluster.kubectl('-n', 'shop', ...args);
const stateOf = (node: ClusterNode, name: string) => mesh.pods(node).find((one) => one.name === name)?.state;

/** Line of an agent's log that holds the text, from `since` on; its time. */
async function logged(log: string, text: string | RegExp): Promise<number> {
  const line = log.split('\n').findLast((one) => one.search(text) >= 0);
  if (line === undefined) throw new Error(`nothing of ${text} in the log`);
  return new Date((JSON.parse(line) as { time: string | number }).time).getTime();
}

test('an agent that is killed while the API server is away knows its pods within a second of its start', async () => {
  const address = await inShop('get', 'pod', 'server', '-o', 'jsonpath={.status.podIP}');
  const client = mesh.processIn(a, 'shop', 'client');
  await sleep(300); // the last change is saved after 100 ms
  await cluster.plane.stopComponent('apiServer', 'SIGKILL');
  const before = mesh.agentPid(a);
  process.kill(before, 'SIGKILL');
  await waitFor(
    'another agent',
    () => mesh.agentPid(a) !== before && stateOf(a, 'client') === 'captured',
    PATIENCE,
  );
  expect(stateOf(a, 'plain')).toBe('plain');
  const log = mesh.agentLogFile(a);
  const started = await logged(log, /"kernel features"/);
  const classified = await logged(log, /"pod":"client".*"captured"/);
  expect(classified - started).toBeLessThan(3_000); // 1 s where nothing else runs on the machine
  expect(log).toContain('the API server is away: pods are as saved');
  // And they are served: certificates come from the controller.
  await waitFor('traffic', () => client.curl(`http://${address}:8080/`).includes('"path":"/"'), PATIENCE);
  expect(mesh.admin(a, '/healthz/ready', 15021)).toMatch(/pods: Pod/);

  await cluster.plane.startComponent('apiServer');
  await mesh.waitForAgents();
  await inShop('label', 'pod', 'plain', 'istio.io/dataplane-mode=ambient', '--overwrite');
  await waitFor('what is new', () => stateOf(a, 'plain') === 'captured', PATIENCE);
}, 180_000);
