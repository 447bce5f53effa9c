import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Bpf } from '../../native/bpf/index.js';
import { MESH_NAMESPACE, waitFor } from '../lab/index.js';
import { type Cluster, type ClusterNode, startCluster } from './cluster.js';
import { ClusterMesh } from './mesh.js';

// What an agent leaves on its node: everything at SIGTERM, nothing once there is the uninstall marker.

const PATIENCE = { timeoutMs: 60_000, intervalMs: 50 };
const MARKER = 'culvert-uninstall';
const HOOKS = { ingress: 0, sockOps: 3, connect4: 10, connect6: 11, getpeername4: 29 };

let cluster: Cluster;
let mesh: ClusterMesh;
let a: ClusterNode;
let b: ClusterNode;

beforeAll(async () => {
  cluster = await startCluster({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  [a, b] = cluster.nodes as [ClusterNode, ClusterNode];
  mesh = await ClusterMesh.start(cluster);
  const labels = { 'istio.io/dataplane-mode': 'ambient' };
  await cluster.plane.apply(
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop', labels } },
    pod('client', 'a', { image: 'busybox', command: ['sleep', '1000000'] }),
    pod('server', 'b', { image: 'culvert-test/http-echo' }),
  );
  await inShop('wait', '--for=condition=Ready', 'pod', '--all', '--timeout=60s');
  await captured();
}, 3_600_000);

afterAll(() => cluster?.close());

function pod(name: string, nodeName: string, container: object): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'shop' },
    spec: { nodeName, terminationGracePeriodSeconds: 1, containers: [{ name: 'main', ...container }] },
  };
}

const inShop = (...args: string[]) => cluster.kubectl('-n', 'shop', ...args);
const inMesh = (...args: string[]) => cluster.kubectl('-n', MESH_NAMESPACE, ...args);
const stateOf = (node: ClusterNode, name: string) => mesh.pods(node).find((one) => one.name === name)?.state;
const captured = () =>
  waitFor(
    'capture',
    async () =>
      stateOf(a, 'client') === 'captured' && stateOf(b, 'server') === 'captured' && (await marks()) === 2,
    PATIENCE,
  );
const marks = async () =>
  (await inShop('get', 'pods', '-o', 'jsonpath={.items[*].metadata.annotations}')).split('redirection')
    .length - 1;
const pins = (node: ClusterNode) => join(node.machine.bpffsDir, 'culvert');
const runFolder = (node: ClusterNode) => join(node.machine.stateDir, 'host/run/culvert');

function programs(node: ClusterNode): number {
  const bpf = new Bpf();
  return Object.values(HOOKS).reduce(
    (sum, hook) => sum + bpf.attached(node.machine.kubepods, hook).length,
    0,
  );
}

async function address(): Promise<string> {
  return await inShop('get', 'pod', 'server', '-o', 'jsonpath={.status.podIP}');
}

/** The agents' DaemonSet finds no node to be on, or all of them. */
async function agentsOn(isOn: boolean): Promise<void> {
  const nodeSelector = { 'test/none': isOn ? null : 'true' };
  const body = { spec: { template: { spec: { nodeSelector } } } };
  await inMesh('patch', 'daemonset', 'culvert-agent', '--type=merge', '-p', JSON.stringify(body));
  if (isOn) return await mesh.waitForAgents();
  await waitFor(
    'the agents to end',
    async () => (await inMesh('get', 'pods', '-o', 'name')) === '',
    PATIENCE,
  );
}

test('without the marker SIGTERM keeps pins and annotations: the pods wait for the next agent', async () => {
  await agentsOn(false);
  expect([programs(a) > 3, programs(b) > 3, existsSync(pins(a)), existsSync(pins(b))]).toEqual([
    true,
    true,
    true,
    true,
  ]);
  expect(await marks()).toBe(2);
  const refused = inShop('exec', 'client', '--', 'curl', '-sS', '-m', '5', `http://${await address()}:8080/`);
  await expect(refused).rejects.toThrow(/curl/);
  await agentsOn(true);
  await captured();
}, 180_000);

test('with the marker every node is released: nothing in the kernel, no pin, socket or annotation; said so; not ready', async () => {
  // A connection that is open all the while.
  const url = `http://${await address()}:8080/`;
  const slow = `(printf 'POST / HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 4\\r\\nConnection: close\\r\\n\\r\\nab'; sleep 8; printf cd)`;
  const script = `exec 3<>/dev/tcp/${await address()}/8080; ${slow} >&3; cat <&3`;
  const open = inShop('exec', 'client', '--', 'bash', '-c', script);
  await waitFor('it to be open', () => JSON.parse(mesh.admin(a, '/connections')).length > 0, PATIENCE);
  await inMesh('create', 'configmap', MARKER);
  await waitFor(
    'both nodes',
    async () => {
      const data = await inMesh('get', 'configmap', MARKER, '-o', 'jsonpath={.data}');
      if (data === '{"a":"released","b":"released"}') return true;
      throw new Error(`${data} ${mesh.agentLogFile(a).slice(-3000)}`);
    },
    PATIENCE,
  );
  for (const node of [a, b]) {
    expect([programs(node), existsSync(pins(node)), readdirSync(runFolder(node))]).toEqual([0, false, []]);
    expect(mesh.admin(node, '/healthz/ready', 15021)).toContain('released: the mesh is being uninstalled');
    expect(mesh.admin(node, '/metrics', 15020)).toContain('culvert_');
  }
  expect(await marks()).toBe(0);
  const wire = await b.machine.capture();
  await inShop('exec', 'client', '--', 'curl', '-sS', '-m', '5', `${url}plainly`);
  await wire.stop();
  expect(wire.contains('GET /plainly')).toBe(true);
  expect(await open).toContain('"bodyBytes":4');
  await agentsOn(false);
  expect([programs(a), programs(b), existsSync(pins(a)), readdirSync(runFolder(b))]).toEqual([
    0,
    0,
    false,
    [],
  ]);
}, 180_000);

test('an agent that starts while there is a marker releases its node, too; when the marker is taken away, agents capture again', async () => {
  await inMesh('delete', 'configmap', MARKER);
  await agentsOn(true);
  await captured();
  await inMesh('create', 'configmap', MARKER);
  const released = async () =>
    (await inMesh('get', 'configmap', MARKER, '-o', 'jsonpath={.data.a}')) === 'released';
  await waitFor('release', released, PATIENCE);
  process.kill(mesh.agentPid(a), 'SIGKILL');
  await inMesh('patch', 'configmap', MARKER, '--type=merge', '-p', '{"data":{"a":null}}');
  await waitFor('another release', released, PATIENCE);
  expect([programs(a), existsSync(pins(a)), await marks()]).toEqual([0, false, 0]);
  await inMesh('delete', 'configmap', MARKER);
  await mesh.waitForAgents();
  await captured();
}, 180_000);
