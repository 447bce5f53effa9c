import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { MESH_NAMESPACE, waitFor } from '../lab/index.js';
import type { KubeObject } from './api.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';
import { ControllerProcess, prepareControllers } from './controllers.js';
import { meshCrds } from './mesh-crds.js';

// Node taints, and what the controller finds: on nodes and pods that only the API server knows (no kubelet), so that every state is at hand.

const PATIENCE = { timeoutMs: 60_000, intervalMs: 100 };
const TAINT = { key: 'culvert/agent-not-ready', effect: 'NoSchedule' };
const OTHER = { key: 'example.org/other', value: 'x', effect: 'NoExecute' };

interface NodeObject extends KubeObject {
  readonly spec: { readonly taints?: readonly { readonly key: string; readonly effect: string }[] };
}

let plane: ControlPlane;
let controller: ControllerProcess;

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  // Nodes without a kubelet: their pods must not be evicted meanwhile.
  await plane.stopComponent('controllerManager');
  await prepareControllers(plane);
  await plane.apply(
    ...meshCrds(),
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } },
    },
    ...['shop', MESH_NAMESPACE].map((namespace) => ({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'default', namespace },
    })),
  );
  controller = await ControllerProcess.start(plane, 'controller', 0);
}, 3_600_000);

afterAll(() => plane.close());

async function addNode(name: string): Promise<void> {
  await plane.api.post('/api/v1/nodes', {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name },
    spec: { taints: [OTHER] },
  });
  await boot(name, 'first');
}

async function boot(name: string, bootID: string): Promise<void> {
  const status = { nodeInfo: { ...NODE_INFO, bootID } };
  await plane.api.patch(`/api/v1/nodes/${name}/status`, { status });
}
const NODE_INFO = {
  ...{ machineID: '', systemUUID: '', kernelVersion: '', osImage: '', containerRuntimeVersion: '' },
  ...{ kubeletVersion: '', kubeProxyVersion: '', operatingSystem: 'linux', architecture: 'amd64' },
};

async function addPod(
  namespace: string,
  name: string,
  nodeName: string,
  metadata: { labels?: object; annotations?: object } = {},
): Promise<void> {
  await plane.api.post(`/api/v1/namespaces/${namespace}/pods`, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, ...metadata },
    spec: {
      nodeName,
      automountServiceAccountToken: false,
      tolerations: [{ operator: 'Exists' }],
      containers: [{ name: 'c', image: 'none', ports: [{ name: 'http', containerPort: 8080 }] }],
    },
  });
  await setPod(namespace, name, false);
}

async function setPod(namespace: string, name: string, ready: boolean): Promise<void> {
  const conditions = [{ type: 'Ready', status: ready ? 'True' : 'False' }];
  await plane.api.patch(`/api/v1/namespaces/${namespace}/pods/${name}/status`, {
    status: { phase: 'Running', conditions },
  });
}

const AGENT = { labels: { 'app.kubernetes.io/name': 'culvert-agent', 'istio.io/dataplane-mode': 'none' } };
const addAgent = (node: string) => addPod(MESH_NAMESPACE, `agent-${node}`, node, AGENT);
const setAgent = (node: string, ready: boolean) => setPod(MESH_NAMESPACE, `agent-${node}`, ready);

async function taintsOf(node: string): Promise<readonly string[]> {
  const { spec } = await plane.api.get<NodeObject>(`/api/v1/nodes/${node}`);
  return (spec.taints ?? []).map(({ key }) => key).filter((key) => !key.startsWith('node.kubernetes.io/'));
}

async function becomes(node: string, isTainted: boolean): Promise<void> {
  const expected = isTainted ? [OTHER.key, TAINT.key] : [OTHER.key];
  await waitFor(
    `${node} ${isTainted ? 'with' : 'without'} the taint`,
    async () => (await taintsOf(node)).join() === expected.join(),
    PATIENCE,
  );
}

interface EventObject extends KubeObject {
  readonly reason: string;
  readonly note: string;
  readonly regarding: { readonly kind: string; readonly name: string; readonly uid?: string };
}

async function eventOf(kind: string, name: string, reason: string): Promise<EventObject> {
  let found: EventObject | undefined;
  await waitFor(
    `event ${reason} of ${kind} ${name}`,
    async () => {
      const { items } = await plane.api.get<{ items: EventObject[] }>('/apis/events.k8s.io/v1/events');
      found = items.find(
        (one) => one.regarding.kind === kind && one.regarding.name === name && one.reason === reason,
      );
      return found !== undefined;
    },
    { timeoutMs: 120_000, intervalMs: 500 },
  );
  return found!;
}

test('before an agent has been ready somewhere nothing is tainted; then whatever node has booted without one', async () => {
  await addNode('a');
  await addNode('bare');
  await addAgent('a');
  await sleep(3000);
  expect(await taintsOf('a')).toEqual([OTHER.key]);
  await setAgent('a', true);
  await waitFor(
    'the mark',
    async () => {
      const { metadata } = await plane.api.get<NodeObject>('/api/v1/nodes/a');
      return metadata.annotations?.['culvert.io/agent-ready-boot'] === 'first';
    },
    PATIENCE,
  );

  await addNode('b');
  await addAgent('b');
  await becomes('b', true);
  await setAgent('b', true);
  await becomes('b', false);
  // No agent is meant to run there.
  expect(await taintsOf('bare')).toEqual([OTHER.key]);
}, 180_000);

test('an agent that is merely gone taints nothing; a boot does, until the agent is ready in it', async () => {
  await setAgent('b', false);
  await sleep(2000);
  expect(await taintsOf('b')).toEqual([OTHER.key]);
  await boot('b', 'second');
  await becomes('b', true);
  await setAgent('b', true);
  await becomes('b', false);
  // So fast that the pod's state is still that of before.
  await boot('b', 'fast');
  await becomes('b', true);
  await becomes('b', false);
}, 120_000);

test('taints of others stay, while both write; one that kubelet has put there goes when the agent is ready', async () => {
  await addNode('c');
  await plane.api.patch('/api/v1/nodes/c', { spec: { taints: [OTHER, TAINT] } });
  await addAgent('c');
  for (let i = 0; i < 20; i++) {
    const more = { key: `example.org/t${i}`, effect: 'NoSchedule' };
    await plane.kubectl('taint', 'node', 'c', `${more.key}=:${more.effect}`);
    if (i === 5) await setAgent('c', true);
  }
  await waitFor('ours to go', async () => !(await taintsOf('c')).includes(TAINT.key), PATIENCE);
  expect(await taintsOf('c')).toHaveLength(21);
}, 120_000);

test('pods that wait for an agent, that are not captured, or pass the mesh by are told, on Node and Pod, by metric and status', async () => {
  await addNode('d');
  await addPod('shop', 'waits', 'd');
  await addPod('shop', 'uncaptured', 'a');
  await addPod('shop', 'out', 'a', { labels: { 'istio.io/dataplane-mode': 'none' } });
  await addPod('shop', 'excluded', 'a', {
    annotations: {
      'traffic.sidecar.istio.io/excludeOutboundPorts': '9000',
      'ambient.istio.io/redirection': 'enabled',
    },
  });
  expect((await eventOf('Pod', 'out', 'ExclusionUsed')).note).toContain('dataplane-mode=none');
  expect((await eventOf('Pod', 'excluded', 'ExclusionUsed')).note).toContain('excludeOutboundPorts=9000');
  const held = await eventOf('Node', 'd', 'PodsHeld');
  expect(held.note).toContain('pod shop/waits of the mesh waits on this node, and there is no agent on it');
  expect((await eventOf('Pod', 'uncaptured', 'NotCaptured')).note).toContain('node a does not have it');
  expect(await controller.metric('culvert_findings{reason="PodsHeld"}')).toBe(1);
  expect(await controller.metric('culvert_findings{reason="ExclusionUsed"}')).toBe(2);
}, 240_000);

test('a NetworkPolicy that shuts the mesh out is told, with what it admits; one that admits both is not', async () => {
  const networkPolicy = (name: string, app: string, ingress: object[]) => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace: 'shop' },
    spec: { podSelector: { matchLabels: { app } }, policyTypes: ['Ingress'], ingress },
  });
  for (const app of ['one', 'two', 'three']) await addPod('shop', app, 'a', { labels: { app } });
  const port = (number: number) => ({ port: number, protocol: 'TCP' });
  const peer = { podSelector: { matchLabels: { app: 'client' } } };
  await plane.apply(
    networkPolicy('blocks', 'one', [{ from: [peer], ports: [port(8080)] }]),
    networkPolicy('tunnel-only', 'two', [{ from: [peer], ports: [port(15008)] }]),
    networkPolicy('both', 'three', [{ from: [peer], ports: [port(8080)] }]),
    // They add up.
    networkPolicy('both-too', 'three', [{ ports: [port(15008)] }]),
  );
  const blocks = await eventOf('NetworkPolicy', 'blocks', 'BlocksMesh');
  expect(blocks.note).toContain('ingress admits 8080 and not 15008 (pod shop/one of the mesh)');
  expect(blocks.regarding.uid).not.toBe('');
  expect((await eventOf('NetworkPolicy', 'tunnel-only', 'BlocksMesh')).note).toContain('admits 15008 only');
  expect(await controller.metric('culvert_findings{reason="BlocksMesh"}')).toBe(2);
}, 180_000);

test('while the mesh is being removed, taints and marks go from every node and do not come back', async () => {
  await boot('b', 'third');
  await setAgent('b', false);
  await becomes('b', true);
  await plane.kubectl('create', 'configmap', 'culvert-uninstall', '-n', MESH_NAMESPACE);
  await becomes('b', false);
  const marks = async () => {
    const { items } = await plane.api.get<{ items: NodeObject[] }>('/api/v1/nodes');
    return items.filter(({ metadata }) => 'culvert.io/agent-ready-boot' in (metadata.annotations ?? {}));
  };
  await waitFor('no marks', async () => (await marks()).length === 0, PATIENCE);
  await boot('b', 'fourth');
  await sleep(2000);
  await becomes('b', false);
  expect(await marks()).toEqual([]);
}, 120_000);
