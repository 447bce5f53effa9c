import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { waitFor } from '../lab/index.js';
import { type Cluster, startCluster } from './cluster.js';

let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster({
    nodes: ['a'],
    onProgress: (line) => void process.stderr.write(`${line}\n`),
  });
  await waitFor('an account', async () => await cluster.kubectl('get', 'serviceaccount', 'default'));
}, 3_600_000);

afterAll(() => cluster.close());

function pod(name: string, command: readonly string[], spec: object): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: {
      terminationGracePeriodSeconds: 2,
      containers: [{ name: 'main', image: 'busybox', command }],
      ...spec,
    },
  };
}

async function jsonpath(what: readonly string[], path: string): Promise<string> {
  return await cluster.kubectl('get', ...what, '-o', `jsonpath={${path}}`);
}

test('a node comes back after a power cut, and its pods with it', async () => {
  const [node] = cluster.nodes;
  // Its address falls to the other one.
  await cluster.plane.apply(pod('first', ['sleep', '1000000'], { nodeName: 'a' }));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod/first', '--timeout=30s');
  await cluster.plane.apply(pod('kept', ['sh', '-c', 'echo up; exec sleep 1000000'], { nodeName: 'a' }));
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod/kept', '--timeout=30s');
  const id = '.status.containerStatuses[0].containerID';
  const before = await jsonpath(['pod', 'kept'], id);
  await node!.crash();
  await cluster.kubectl('delete', 'pod', 'first', '--force', '--grace-period=0');
  node!.start();
  await waitFor(
    'a new container',
    async () => {
      const now = await jsonpath(['pod', 'kept'], id);
      if (now !== before && now !== '') return true;
      throw new Error(readFileSync(node!.logFile, 'utf8') + node!.kubelet.stderr);
    },
    { timeoutMs: 30_000 },
  );
  await cluster.kubectl('wait', '--for=condition=Ready', 'pod/kept', '--timeout=30s');
  expect(await cluster.kubectl('exec', 'kept', '--', 'hostname')).toBe('kept\n');
  expect(await jsonpath(['pod', 'kept'], '.status.podIPs[*].ip')).toBe('10.244.2.2 fd00:244:0:2::2');
  await cluster.kubectl('delete', 'pod', 'kept', '--timeout=30s');
});

test("a node's clock may be an hour off", async () => {
  await cluster.addNode('late', { clockSkewSeconds: -3600 });
  await cluster.waitForNode('late');
  const spec = { nodeName: 'late', restartPolicy: 'Never' };
  await cluster.plane.apply(pod('clock', ['date', '+%s'], spec));
  await cluster.kubectl('wait', '--for=jsonpath={.status.phase}=Succeeded', 'pod/clock', '--timeout=30s');
  const late = Date.now() / 1000 - Number(await cluster.kubectl('logs', 'clock'));
  expect(late).toBeGreaterThan(3590);
  expect(late).toBeLessThan(3660);
});
