import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { cniPlugin } from '../../agent/cni/index.js';
import { MESH_NAMESPACE, waitFor } from '../lab/index.js';
import { type Cluster, type ClusterNode, startCluster } from './cluster.js';
import { ClusterMesh } from './mesh.js';

// The chained CNI plugin, run by lab kubelets as a container runtime runs it.

const PATIENCE = { timeoutMs: 60_000, intervalMs: 100 };
const LIST = { cniVersion: '1.0.0', name: 'lab', plugins: [{ type: 'lab' }] };

let cluster: Cluster;
let mesh: ClusterMesh;
let node: ClusterNode;

const onNode = (path: string) => join(node.machine.stateDir, 'host', path);
const listFile = () => onNode('etc/cni/net.d/10-lab.conflist');

beforeAll(async () => {
  cluster = await startCluster({
    nodes: ['a'],
    onProgress: (line) => void process.stderr.write(`${line}\n`),
  });
  node = cluster.nodes[0]!;
  mkdirSync(dirname(listFile()), { recursive: true });
  writeFileSync(listFile(), JSON.stringify(LIST));
  const agentFlags = ['--cni-bin-dir', '/opt/cni/bin', '--cni-conf-dir', '/etc/cni/net.d'];
  mesh = await ClusterMesh.start(cluster, { agentFlags });
}, 3_600_000);

afterAll(() => cluster?.close());

function pod(name: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'main', image: 'busybox', command: ['sleep', '1000000'] }],
    },
  };
}

const ready = (name: string) =>
  cluster.kubectl('wait', '--for=condition=Ready', `pod/${name}`, '--timeout=60s');

const patchAgents = (patch: string) =>
  cluster.kubectl('-n', MESH_NAMESPACE, 'patch', 'daemonset', 'culvert-agent', '--type=merge', '-p', patch);

test('after a reboot no pod starts before the agent has: the agent itself does', async () => {
  const plugins = () =>
    (JSON.parse(readFileSync(listFile(), 'utf8')) as typeof LIST).plugins.map(({ type }) => type);
  expect(plugins()).toEqual(['lab', cniPlugin]);
  await cluster.plane.apply(pod('before'));
  await ready('before');

  // No agent, and nothing in the kernel; what is on disk stays.
  await patchAgents(selector('true'));
  await waitFor(
    'the agent to end',
    async () => (await cluster.kubectl('-n', MESH_NAMESPACE, 'get', 'pods', '-o', 'name')) === '',
    PATIENCE,
  );
  rmSync(join(node.machine.bpffsDir, 'culvert'), { recursive: true, force: true });
  expect(plugins()).toEqual(['lab', cniPlugin]);
  await cluster.plane.apply(pod('held'));
  await waitFor(
    'the reason in an Event',
    async () =>
      (await cluster.kubectl('get', 'events', '-o', 'jsonpath={.items[*].message}')).includes(
        "the mesh's agent has not started",
      ),
    PATIENCE,
  );
  expect(await cluster.kubectl('get', 'pod', 'held', '-o', 'jsonpath={.status.phase}')).toBe('Pending');

  await patchAgents(selector(null));
  await mesh.waitForAgents();
  await ready('held');
}, 180_000);

test('the uninstall marker takes the plugin away, and pods start', async () => {
  await cluster.kubectl('-n', MESH_NAMESPACE, 'create', 'configmap', 'culvert-uninstall');
  const data = () =>
    cluster.kubectl(
      '-n',
      MESH_NAMESPACE,
      'get',
      'configmap',
      'culvert-uninstall',
      '-o',
      'jsonpath={.data.a}',
    );
  await waitFor('release', async () => (await data()) === 'released', PATIENCE);
  expect(JSON.parse(readFileSync(listFile(), 'utf8'))).toEqual(LIST);
  expect(existsSync(onNode(`opt/cni/bin/${cniPlugin}`))).toBe(false);
  await cluster.plane.apply(pod('after'));
  await ready('after');
}, 120_000);

function selector(none: string | null): string {
  return JSON.stringify({ spec: { template: { spec: { nodeSelector: { 'test/none': none } } } } });
}
