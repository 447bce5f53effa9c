import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { MESH_NAMESPACE, waitFor } from '../lab/index.js';
import type { ApiClient } from './api.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';

// The chart's admission policies: what a stolen agent token may write, and what a tenant may who can patch pods.

const PATIENCE = { timeoutMs: 60_000, intervalMs: 100 };
const MARK = 'ambient.istio.io/redirection';
const MODE = 'istio.io/dataplane-mode';
const EXCLUDE = 'traffic.sidecar.istio.io/excludeOutboundPorts';
const RBAC = 'rbac.authorization.k8s.io';

let plane: ControlPlane;
let tenant: ApiClient;

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  const named = (kind: string) => (name: string) => ({ apiVersion: 'v1', kind, metadata: { name } });
  await plane.apply(
    ...['n1', 'n2'].map(named('Node')),
    ...['shop', 'free', MESH_NAMESPACE].map(named('Namespace')),
    {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'culvert-agent', namespace: MESH_NAMESPACE },
    },
    ...role('culvert-agent', [{ apiGroups: [''], resources: ['pods/status'], verbs: ['patch'] }], {
      kind: 'ServiceAccount',
      name: 'culvert-agent',
      namespace: MESH_NAMESPACE,
    }),
    ...role('tenant', [{ apiGroups: ['', 'apps', 'batch'], resources: ['*'], verbs: ['*'] }], {
      apiGroup: RBAC,
      kind: 'Group',
      name: 'tenants',
    }),
  );
  for (const namespace of ['shop', 'free', MESH_NAMESPACE])
    await waitFor(
      'accounts',
      () => plane.api.get(`/api/v1/namespaces/${namespace}/serviceaccounts/default`),
      PATIENCE,
    );
  await plane.apply(
    ...['n1', 'n2'].map((node) => ({
      ...pod(`agent-${node}`, node),
      metadata: { name: `agent-${node}`, namespace: MESH_NAMESPACE },
      spec: { ...pod('', node).spec, serviceAccountName: 'culvert-agent' },
    })),
  );
  await install('exemptions.allow.namespaces={free}', 'exemptions.allow.groups={operators}');
  tenant = userOf('tenants');
  await waitFor(
    'the policies to act',
    () => isRefused(tenant.post(pods(), marked('early')), /captured/),
    PATIENCE,
  );
  await waitFor(
    'the third one',
    () => isRefused(tenant.post(pods(), exempt('early')), /exemptions/),
    PATIENCE,
  );
}, 3_600_000);

afterAll(() => plane?.close());

beforeEach(async () => {
  await plane.kubectl('delete', 'pods,deployments', '--all', '-n', 'shop', '--force');
  await plane.api.post(pods(), pod('mine', 'n1'));
});

function role(name: string, rules: readonly object[], subject: object): object[] {
  const metadata = { name };
  const roleRef = { apiGroup: RBAC, kind: 'ClusterRole', name };
  return [
    { apiVersion: `${RBAC}/v1`, kind: 'ClusterRole', metadata, rules },
    { apiVersion: `${RBAC}/v1`, kind: 'ClusterRoleBinding', metadata, subjects: [subject], roleRef },
  ];
}

/** Only the policies: everything else of the chart has its own tests. */
async function install(...values: string[]): Promise<void> {
  const chart = join(packageRoot(), 'charts/culvert');
  const show = ['redirection', 'exemptions'].flatMap((name) => [
    '--show-only',
    `templates/admission-${name}.yaml`,
  ]);
  const set = values.flatMap((value) => ['--set', value]);
  const text = await plane.helm('template', 'culvert', chart, '-n', MESH_NAMESPACE, ...show, ...set);
  await plane.run(plane.binaries.kubectl, ['apply', '-f', '-'], text);
}

const pods = (namespace = 'shop') => `/api/v1/namespaces/${namespace}/pods`;
const status = (name = 'mine') => `${pods()}/${name}/status`;

function pod(name: string, nodeName: string, metadata: object = {}) {
  const containers = [{ name: 'c', image: 'x' }];
  return { apiVersion: 'v1', kind: 'Pod', metadata: { name, ...metadata }, spec: { nodeName, containers } };
}

const marked = (name: string) => pod(name, 'n1', { annotations: { [MARK]: 'enabled' } });
const exempt = (name: string) => pod(name, 'n1', { labels: { [MODE]: 'none' } });
const annotate = (value: string | null, more: object = {}) => ({
  metadata: { annotations: { [MARK]: value, ...more } },
});

function userOf(...groups: string[]): ApiClient {
  return plane.client(plane.credentials({ user: groups.join('-'), groups }));
}

/** A client with the token of the agent of a node. */
async function agentOf(node: string): Promise<{ patch(path: string, body: object): Promise<unknown> }> {
  const bound = ['--bound-object-kind=Pod', `--bound-object-name=agent-${node}`];
  return byToken(
    (await plane.kubectl('create', 'token', 'culvert-agent', '-n', MESH_NAMESPACE, ...bound)).trim(),
  );
}

function byToken(token: string) {
  return {
    patch: async (path: string, body: object): Promise<unknown> => {
      const args = [
        '-sS',
        '-m',
        '20',
        '--cacert',
        plane.ca.certificateFile,
        '-X',
        'PATCH',
        '--data-binary',
        '@-',
      ];
      const headers = [`Authorization: Bearer ${token}`, 'Content-Type: application/merge-patch+json'];
      const output = await plane.run(
        'curl',
        [...args, ...headers.flatMap((header) => ['-H', header]), `${plane.url}${path}`],
        JSON.stringify(body),
      );
      const answer = JSON.parse(output) as { kind: string; message?: string };
      if (answer.kind === 'Status') throw new Error(answer.message);
      return answer;
    },
  };
}

async function isRefused(attempt: Promise<unknown>, pattern: RegExp): Promise<boolean> {
  try {
    await attempt;
  } catch (error) {
    return pattern.test((error as Error).message);
  }
  await plane.kubectl('delete', 'pods', '--all', '-n', 'shop', '--force');
  return false;
}

async function mark(name = 'mine'): Promise<string | undefined> {
  const found = await plane.api.get<{ metadata: { annotations?: Record<string, string> } }>(
    `${pods()}/${name}`,
  );
  return found.metadata.annotations?.[MARK];
}

test('an agent writes its annotation on pods of its own node, and takes it back', async () => {
  const agent = await agentOf('n1');
  await agent.patch(status(), annotate('enabled'));
  expect(await mark()).toBe('enabled');
  await agent.patch(status(), annotate(null));
  expect(await mark()).toBeUndefined();
});

test("a stolen agent token writes nothing on another node's pods, and nothing else on its own node's", async () => {
  const other = await agentOf('n2');
  await expect(other.patch(status(), annotate('enabled'))).rejects.toThrow(
    /agent of node n2 may not write pods of node n1/,
  );
  const own = await agentOf('n1');
  const nothingElse = /and nothing else|exemptions from the mesh/; // either policy may be the first to say no
  for (const body of [
    { status: { phase: 'Failed' } },
    { status: { podIP: '10.9.9.9', podIPs: [{ ip: '10.9.9.9' }] } },
    { metadata: { labels: { [MODE]: 'none' } } },
    { metadata: { annotations: { [MARK]: 'enabled', other: 'x' } } },
    { metadata: { annotations: { [EXCLUDE]: '80' } } },
    { metadata: { finalizers: ['culvert.dev/never'] } },
  ])
    await expect(own.patch(status(), body)).rejects.toThrow(nothingElse);
  await expect(own.patch(status(), annotate('disabled'))).rejects.toThrow(/"enabled" or absent/);
  await expect(own.patch(`${pods()}/mine`, annotate('enabled'))).rejects.toThrow(/forbidden/);
  const unbound = byToken(
    (await plane.kubectl('create', 'token', 'culvert-agent', '-n', MESH_NAMESPACE)).trim(),
  );
  await expect(unbound.patch(status(), annotate('enabled'))).rejects.toThrow(/agent of node \(none\)/);
  expect(await mark()).toBeUndefined();
});

test('nobody else sets, changes or removes the annotation, neither by pod, status nor binding', async () => {
  const onlyAgents = /only the agent of its node may write it/;
  for (const user of [tenant, userOf('operators', 'tenants'), plane.api]) {
    await expect(user.post(pods(), marked('made'))).rejects.toThrow(onlyAgents);
    await expect(user.patch(`${pods()}/mine`, annotate('enabled'))).rejects.toThrow(onlyAgents);
    await expect(user.patch(status(), annotate('enabled'))).rejects.toThrow(onlyAgents);
  }
  await (await agentOf('n1')).patch(status(), annotate('enabled'));
  await expect(tenant.patch(`${pods()}/mine`, annotate(null))).rejects.toThrow(onlyAgents);
  await expect(tenant.patch(`${pods()}/mine`, annotate('disabled'))).rejects.toThrow(onlyAgents);
  await tenant.patch(`${pods()}/mine`, { metadata: { annotations: { other: 'x' } } });
  await tenant.patch(status(), { status: { message: 'as before' } });
  expect(await mark()).toBe('enabled');
  const hook = plane.client(
    plane.credentials({
      user: `system:serviceaccount:${MESH_NAMESPACE}:culvert-uninstall`,
      groups: ['tenants'],
    }),
  );
  await expect(hook.patch(status(), annotate('disabled'))).rejects.toThrow(onlyAgents);
  await hook.patch(status(), annotate(null));
  await expect(hook.patch(status(), annotate('enabled'))).rejects.toThrow(onlyAgents);

  const { nodeName: _, ...unbound } = pod('', 'n1').spec;
  await tenant.post(pods(), { ...pod('pending', ''), spec: { ...unbound, schedulerName: 'nobody' } });
  const binding = (annotations: object) => ({
    apiVersion: 'v1',
    kind: 'Binding',
    metadata: { name: 'pending', annotations },
    target: { apiVersion: 'v1', kind: 'Node', name: 'n1' },
  });
  await expect(tenant.post(`${pods()}/pending/binding`, binding({ [MARK]: 'enabled' }))).rejects.toThrow(
    onlyAgents,
  );
  await expect(tenant.post(`${pods()}/pending/binding`, binding({ [EXCLUDE]: '80' }))).rejects.toThrow(
    /exemptions/,
  );
  await tenant.post(`${pods()}/pending/binding`, binding({}));
});

test('exemptions: only in allowed namespaces and by allowed groups; what was there goes on', async () => {
  const refused = (what: string) => new RegExp(`exemptions from the mesh are not allowed .*: .*${what}`);
  await expect(tenant.post(pods(), exempt('out'))).rejects.toThrow(refused(MODE));
  for (const annotation of [
    EXCLUDE,
    'traffic.sidecar.istio.io/excludeOutboundIPRanges',
    'traffic.sidecar.istio.io/excludeInboundPorts',
    'ambient.istio.io/bypass-inbound-capture',
    'ambient.istio.io/dns-capture',
    'sidecar.istio.io/status',
  ]) {
    const body = { metadata: { annotations: { [annotation]: 'x' } } };
    await expect(
      tenant.post(pods(), pod('out', 'n1', { annotations: { [annotation]: 'x' } })),
    ).rejects.toThrow(refused(annotation));
    await expect(tenant.patch(`${pods()}/mine`, body)).rejects.toThrow(refused(annotation));
    await expect(tenant.patch(status(), body)).rejects.toThrow(refused(annotation));
  }
  await expect(tenant.patch(`${pods()}/mine`, { metadata: { labels: { [MODE]: 'none' } } })).rejects.toThrow(
    refused(MODE),
  );
  await tenant.patch(`${pods()}/mine`, { metadata: { labels: { [MODE]: 'ambient' } } });
  await tenant.post(pods('free'), exempt('out'));

  await userOf('operators', 'tenants').post(pods(), exempt('out'));
  await tenant.patch(`${pods()}/out`, { metadata: { annotations: { other: 'x' } } });
  await expect(
    tenant.patch(`${pods()}/out`, { metadata: { annotations: { [EXCLUDE]: '80' } } }),
  ).rejects.toThrow(refused(EXCLUDE));
});

test('exemptions of what pods are made after: asked of its maker; its pods come', async () => {
  const template = {
    metadata: { labels: { app: 'web', [MODE]: 'none' } },
    spec: { containers: [{ name: 'c', image: 'x' }] },
  };
  const job = { ...template, spec: { ...template.spec, restartPolicy: 'Never' } };
  const selector = { matchLabels: { app: 'web' } };
  const refused = /exemptions from the mesh are not allowed/;
  const deployment = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web' },
    spec: { selector, template },
  };
  await expect(tenant.post('/apis/apps/v1/namespaces/shop/deployments', deployment)).rejects.toThrow(refused);
  await expect(
    tenant.post('/apis/batch/v1/namespaces/shop/jobs', {
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: { name: 'once' },
      spec: { template: job },
    }),
  ).rejects.toThrow(refused);
  await expect(
    tenant.post('/apis/batch/v1/namespaces/shop/cronjobs', {
      apiVersion: 'batch/v1',
      kind: 'CronJob',
      metadata: { name: 'often' },
      spec: { schedule: '0 0 * * *', jobTemplate: { spec: { template: job } } },
    }),
  ).rejects.toThrow(refused);
  await userOf('operators', 'tenants').post('/apis/apps/v1/namespaces/shop/deployments', deployment);
  await waitFor(
    'its pod',
    async () => (await plane.kubectl('get', 'pods', '-n', 'shop', '-l', `${MODE}=none`, '-o', 'name')) !== '',
    PATIENCE,
  );
});
