import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { KubernetesPodSource, type LocalPod } from '../../agent/pods/index.js';
import { createLog } from '../../mesh/log/index.js';
import { waitFor } from '../lab/index.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';

// What an agent learns and writes, with a service account that may do only that.

const log = createLog({ level: 'silent', component: 'test' });
const PATIENCE = { timeoutMs: 60_000, intervalMs: 20 };
const ANNOTATION = 'ambient.istio.io/redirection';
const AMBIENT = { 'istio.io/dataplane-mode': 'ambient' };

let plane: ControlPlane;
let kubeconfig: string;
let source: KubernetesPodSource;
let pods: readonly LocalPod[];
let calls: number;

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  const nodes = ['n1', 'n2'].map((name) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } }));
  const namespaces = ['shop', 'mesh'].map((name) => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name },
  }));
  const account = {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'agent', namespace: 'mesh' },
  };
  const rules = [
    { apiGroups: [''], resources: ['pods', 'namespaces'], verbs: ['list', 'watch'] },
    { apiGroups: [''], resources: ['pods/status'], verbs: ['patch'] },
  ];
  const rbac = 'rbac.authorization.k8s.io';
  const role = { apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name: 'agent' }, rules };
  const subjects = [{ kind: 'ServiceAccount', name: 'agent', namespace: 'mesh' }];
  const roleRef = { apiGroup: rbac, kind: 'ClusterRole', name: 'agent' };
  const binding = { ...role, kind: 'ClusterRoleBinding', rules: undefined, subjects, roleRef };
  await plane.apply(...nodes, ...namespaces, account, role, binding);
  await waitFor(
    'default accounts',
    () => plane.api.get('/api/v1/namespaces/shop/serviceaccounts/default').then(() => true),
    PATIENCE,
  );
  kubeconfig = await kubeconfigOfAgent();
}, 3_600_000);

afterAll(() => plane.close());

afterEach(async () => {
  await source.stop();
  await plane.kubectl('delete', 'pods', '--all', '-n', 'shop', '--force');
  await plane.kubectl('label', 'namespace', 'shop', 'istio.io/dataplane-mode-');
});

async function kubeconfigOfAgent(name = 'agent', ...tokenOf: string[]): Promise<string> {
  const token = (await plane.kubectl('create', 'token', name, '-n', 'mesh', ...tokenOf)).trim();
  const file = join(plane.ca.folder, `${name}-${tokenOf.join('-')}.kubeconfig`);
  const cluster = { server: plane.url, 'certificate-authority': plane.ca.certificateFile };
  const config = {
    'current-context': 'x',
    contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
    clusters: [{ name: 'x', cluster }],
    users: [{ name: 'x', user: { token } }],
  };
  writeFileSync(file, JSON.stringify(config));
  return file;
}

async function start(file = kubeconfig): Promise<void> {
  pods = [];
  calls = 0;
  source = new KubernetesPodSource({ kubeconfig: file, nodeName: 'n1' }, { log, snapshot: null });
  await source.start((now) => {
    pods = now;
    calls++;
  });
}

const path = (name: string) => `/api/v1/namespaces/shop/pods/${name}`;
interface Pod {
  readonly metadata: { readonly uid: string; readonly annotations?: Readonly<Record<string, string>> };
}
const makePod = (name: string, more: { node?: string; labels?: object; spec?: object } = {}) =>
  plane.api.post<Pod>('/api/v1/namespaces/shop/pods', {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: more.labels ?? {} },
    spec: { nodeName: more.node ?? 'n1', containers: [{ name: 'c', image: 'x' }], ...more.spec },
  });
const setStatus = (name: string, status: object) => plane.api.patch(`${path(name)}/status`, { status });
const label = (mode: string | null) =>
  plane.api.patch('/api/v1/namespaces/shop', { metadata: { labels: { 'istio.io/dataplane-mode': mode } } });
const names = () => pods.map(({ name }) => name).sort();
const enrolled = () => pods.filter((pod) => pod.enrolled).map(({ name }) => name);
const mark = async (name: string) =>
  (await plane.api.get<Pod>(path(name))).metadata.annotations?.[ANNOTATION];

test('only pods of this node; labels of pod and namespace act at once; pods that have ended are gone', async () => {
  await makePod('here');
  await makePod('far', { node: 'n2' });
  await makePod('host', { labels: AMBIENT, spec: { hostNetwork: true } });
  await start();
  expect([calls, names()]).toEqual([1, ['here', 'host']]);
  expect(enrolled()).toEqual([]);
  await label('ambient');
  await waitFor('enrolment', () => enrolled().join() === 'here', PATIENCE);
  await setStatus('here', { podIP: '10.0.0.9', podIPs: [{ ip: '10.0.0.9' }], phase: 'Running' });
  await waitFor('its address', () => pods.some((pod) => pod.addresses[0] === '10.0.0.9'), PATIENCE);
  await label(null);
  await waitFor('un-enrolment', () => enrolled().length === 0, PATIENCE);
  await makePod('own', { labels: AMBIENT });
  await waitFor('its own label to act', () => enrolled().join() === 'own', PATIENCE);
  await setStatus('here', { phase: 'Succeeded' });
  await waitFor('its end', () => !names().includes('here'), PATIENCE);
  await plane.kubectl('delete', 'pod', 'own', '-n', 'shop', '--force');
  await waitFor('its removal', () => names().join() === 'host', PATIENCE);
  expect(source.problems).toEqual([]);
});

test('a pod that is captured is annotated, an un-enrolled one no more; another one of its name is not', async () => {
  await label('ambient');
  const { metadata: first } = await makePod('a');
  await start();
  source.noteCaptured(first.uid, true);
  await waitFor('the annotation', async () => (await mark('a')) === 'enabled', PATIENCE);
  source.noteCaptured(first.uid, false);
  await waitFor('its removal', async () => (await mark('a')) === undefined, PATIENCE);

  source.noteCaptured(first.uid, true);
  await waitFor('the annotation', async () => (await mark('a')) === 'enabled', PATIENCE);
  await plane.kubectl('annotate', 'pod', 'a', '-n', 'shop', `${ANNOTATION}-`);
  await waitFor('it to be set right', async () => (await mark('a')) === 'enabled', PATIENCE);

  await plane.kubectl('delete', 'pod', 'a', '-n', 'shop', '--force');
  const { metadata: second } = await makePod('a');
  await waitFor('the second to be seen', () => pods.some(({ uid }) => uid === second.uid), PATIENCE);
  source.noteCaptured(first.uid, true);
  await makePod('b');
  await waitFor('b', () => names().includes('b'), PATIENCE);
  expect(await mark('a')).toBeUndefined();
  // And should we be late, the API server itself tells them apart.
  const patch = plane.api.patch(`${path('a')}/status`, {
    metadata: { uid: first.uid, annotations: { [ANNOTATION]: 'enabled' } },
  });
  await expect(patch).rejects.toMatchObject({ status: 422 });
});

test('an agent that has given way writes nothing any more', async () => {
  await label('ambient');
  const { metadata } = await makePod('a');
  await start();
  source.noteCaptured(metadata.uid, true);
  await waitFor('the annotation', async () => (await mark('a')) === 'enabled', PATIENCE);
  source.stopNoting();
  await plane.kubectl('annotate', 'pod', 'a', '-n', 'shop', `${ANNOTATION}-`);
  await makePod('b');
  await waitFor('b', () => names().includes('b'), PATIENCE);
  source.noteCaptured(metadata.uid, true);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(await mark('a')).toBeUndefined();
});

test('while the API server is away an agent that starts waits, and says for what', async () => {
  await makePod('here');
  await plane.stopComponent('apiServer', 'SIGKILL');
  pods = [];
  source = new KubernetesPodSource({ kubeconfig, nodeName: 'n1' }, { log, snapshot: null });
  const started = source.start((now) => {
    pods = now;
  });
  await waitFor('what it waits for', () => /Pod: .*127\.0\.0\.1/.test(source.pending.join()), PATIENCE);
  await plane.startComponent('apiServer');
  await started;
  expect([names(), source.pending]).toEqual([['here'], []]);
}, 120_000);

test('an agent that may see no pods itself sees those of its node, as its node, and of no other', async () => {
  const rbac = 'rbac.authorization.k8s.io';
  const account = {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'bound', namespace: 'mesh' },
  };
  const rules = [
    { apiGroups: [''], resources: ['namespaces'], verbs: ['list', 'watch'] },
    { apiGroups: ['authentication.k8s.io'], resources: ['nodes'], verbs: ['impersonate:associated-node'] },
    {
      apiGroups: [''],
      resources: ['pods'],
      verbs: ['impersonate-on:associated-node:list', 'impersonate-on:associated-node:watch'],
    },
  ];
  const role = { apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name: 'bound' }, rules };
  const subjects = [{ kind: 'ServiceAccount', name: 'bound', namespace: 'mesh' }];
  const roleRef = { apiGroup: rbac, kind: 'ClusterRole', name: 'bound' };
  const binding = { ...role, kind: 'ClusterRoleBinding', rules: undefined, subjects, roleRef };
  const agentOn = (node: string) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `agent-${node}`, namespace: 'mesh' },
    spec: { nodeName: node, serviceAccountName: 'bound', containers: [{ name: 'c', image: 'x' }] },
  });
  await plane.apply(account, role, binding);
  await plane.apply(agentOn('n1'), agentOn('n2'));
  await makePod('here');
  await makePod('far', { node: 'n2' });
  const tokenOf = (node: string) =>
    kubeconfigOfAgent('bound', '--bound-object-kind=Pod', `--bound-object-name=agent-${node}`);

  await start(await tokenOf('n1'));
  expect(names()).toEqual(['agent-n1', 'here']);
  await makePod('later');
  await waitFor('a later one', () => names().includes('later'), PATIENCE);
  await source.stop();

  source = new KubernetesPodSource(
    { kubeconfig: await tokenOf('n2'), nodeName: 'n1' },
    { log, snapshot: null },
  );
  void source.start(() => {});
  await waitFor('a refusal', () => /^Pod: .*forbidden/.test(source.pending.join()), PATIENCE);
});
