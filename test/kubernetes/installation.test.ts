import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parseAllDocuments } from 'yaml';
import { packageRoot } from '../../native/package-root.js';
import { waitFor } from '../lab/index.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';

// The programs of the chart's hooks against a real API server, with the rights that the chart gives them and no others.

const CHART = join(packageRoot(), 'charts/culvert');
const SYSTEM = 'culvert-system';
const PATIENCE = { timeoutMs: 60_000, intervalMs: 50 };
const CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';

interface Crd {
  readonly metadata: {
    readonly generation: number;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: { readonly versions: readonly object[] };
}

let plane: ControlPlane;

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  const namespace = (name: string) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  await plane.apply(namespace(SYSTEM), namespace('shop'));
  const shown = ['install', 'uninstall'].flatMap((name) => ['-s', `templates/hook-${name}.yaml`]);
  const text = await plane.helm('template', 'culvert', CHART, '-n', SYSTEM, ...shown);
  const objects = parseAllDocuments(text).map((document) => document.toJS() as { kind: string } | null);
  await plane.apply(
    ...objects.filter((object) => object !== null && object.kind !== 'Job').map((object) => object!),
  );
  await waitFor(
    'default accounts',
    () => plane.api.get('/api/v1/namespaces/shop/serviceaccounts/default').then(() => true),
    PATIENCE,
  );
}, 3_600_000);

afterAll(() => plane?.close());

/** Runs a hook's program as its service account; gives what it said. Rejects where it fails. */
async function run(name: 'install' | 'uninstall', ...args: string[]): Promise<string> {
  const token = (await plane.kubectl('create', 'token', `culvert-${name}`, '-n', SYSTEM)).trim();
  const kubeconfig = join(plane.ca.folder, `${name}.kubeconfig`);
  const cluster = { server: plane.url, 'certificate-authority': plane.ca.certificateFile };
  const config = {
    'current-context': 'x',
    contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
    clusters: [{ name: 'x', cluster }],
    users: [{ name: 'x', user: { token } }],
  };
  writeFileSync(kubeconfig, JSON.stringify(config), { mode: 0o600 });
  const program = join(packageRoot(), `dist/control/${name}.js`);
  const options = { env: { ...process.env, NODE_OPTIONS: '' } };
  return (
    await promisify(execFile)(process.execPath, [program, '--kubeconfig', kubeconfig, ...args], options)
  ).stdout;
}

const crd = (name: string) => plane.api.get<Crd>(`${CRDS}/${name}`);
const policy = (name: string, spec: object, version = 'v1') => ({
  apiVersion: `security.istio.io/${version}`,
  kind: 'AuthorizationPolicy',
  metadata: { name, namespace: 'shop' },
  spec,
});
const policies = (version: string) =>
  `/apis/security.istio.io/${version}/namespaces/shop/authorizationpolicies`;

test('all CRDs are served when the hook has ended, in every version', async () => {
  const lines = (await run('install')).trim().split('\n');
  expect(lines).toHaveLength(17);
  expect(lines.every((line) => line.endsWith(': installed'))).toBe(true);
  for (const [group, versions] of [
    ['networking.istio.io', ['v1', 'v1beta1', 'v1alpha3']],
    ['security.istio.io', ['v1', 'v1beta1']],
    ['telemetry.istio.io', ['v1', 'v1alpha1']],
  ] as const)
    for (const version of versions) {
      const { resources } = await plane.api.get<{ resources: { name: string }[] }>(
        `/apis/${group}/${version}`,
      );
      expect(resources.some(({ name }) => name.endsWith('/status'))).toBe(true);
    }
});

test('an object is the same in each version; a field that nobody knows is kept, a value of the wrong kind is not', async () => {
  // Pruned, the narrower source would be lost, and the rule would let everybody in.
  const rules = [{ from: [{ source: { principals: ['*'], sourceCountry: ['CH'] } }] }];
  await plane.api.post(policies('v1beta1'), policy('strange', { action: 'ALLOW', rules }, 'v1beta1'));
  const { spec } = await plane.api.get<{ spec: object }>(`${policies('v1')}/strange`);
  expect(spec).toEqual({ action: 'ALLOW', rules });
  await expect(plane.api.post(policies('v1'), policy('bad', { action: 'PERMIT' }))).rejects.toThrow(/action/);
  await expect(plane.api.post(policies('v1'), policy('bad', { rules: 'all' }))).rejects.toThrow(/rules/);
});

test("ours that somebody has changed is set right, one that is newer and another's are left alone", async () => {
  const [ours, newer, theirs] = ['sidecars', 'serviceentries', 'destinationrules'].map(
    (name) => `${name}.networking.istio.io`,
  );
  const merge = (name: string, body: object) => plane.api.patch(`${CRDS}/${name}`, body);
  const before = await crd(ours!);
  await merge(ours!, {
    metadata: { annotations: { 'culvert.io/crd-revision': '0' } },
    spec: { names: { shortNames: ['mine'] } },
  });
  await merge(newer!, { metadata: { annotations: { 'culvert.io/crd-revision': '1000' } } });
  await merge(theirs!, {
    metadata: { labels: { 'culvert.io/crd': null } },
    spec: { names: { shortNames: ['drs'] } },
  });
  const generations = [(await crd(newer!)).metadata.generation, (await crd(theirs!)).metadata.generation];
  const said = await run('install');
  expect(said).toContain(`${ours}: updated`);
  expect(said).toContain('workloadentries.networking.istio.io: unchanged');
  expect(said).toContain(`${newer}: newer, left as it is`);
  expect(said).toContain(`${theirs}: another's, left as it is`);
  const after = await crd(ours!);
  expect(after.spec.versions).toEqual(before.spec.versions);
  expect(after.metadata.annotations!['culvert.io/crd-revision']).toBe(
    before.metadata.annotations!['culvert.io/crd-revision'],
  );
  expect([(await crd(newer!)).metadata.generation, (await crd(theirs!)).metadata.generation]).toEqual(
    generations,
  );
  expect(await plane.kubectl('get', 'authorizationpolicies', '-n', 'shop', '-o', 'name')).toContain(
    'strange',
  );
});

test('a removal takes away what agents and controllers have left, and nothing of users', async () => {
  const root = (namespace: string) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'culvert-ca-root-cert', namespace },
    data: { 'root-cert.pem': 'x' },
  });
  const marked = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: 'p',
      namespace: 'shop',
      annotations: { 'ambient.istio.io/redirection': 'enabled', own: 'x' },
    },
    spec: { nodeName: 'n1', containers: [{ name: 'c', image: 'x' }] },
  };
  const taints = [
    { key: 'culvert/agent-not-ready', effect: 'NoSchedule' },
    { key: 'own', effect: 'NoSchedule' },
  ];
  const annotations = { 'culvert.io/agent-ready-boot': 'b', own: 'x' };
  const node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n1', annotations }, spec: { taints } };
  const secret = (name: string) => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace: SYSTEM },
  });
  await plane.apply(
    node,
    root('shop'),
    root(SYSTEM),
    marked,
    secret('culvert-ca-secret'),
    secret('culvert-webhook-ca'),
    {
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: { name: 'culvert-install', namespace: SYSTEM },
      spec: { template: { spec: { restartPolicy: 'Never', containers: [{ name: 'c', image: 'x' }] } } },
    },
  );
  const said = await run('uninstall', '--agents-timeout', '5s', '--webhooks', `culvert-validation-${SYSTEM}`);
  expect(said).not.toContain('NOT DONE');
  expect(said).toContain('no agent runs on n1');
  expect(said).toContain('Job culvert-install of a failed upgrade removed');
  const get = (path: string, ...what: string[]) => plane.kubectl('get', ...what, '-o', `jsonpath={${path}}`);
  expect(await get('.spec.taints[*].key', 'node/n1')).not.toContain('culvert');
  expect(await get('.spec.taints[*].key', 'node/n1')).toContain('own');
  expect(JSON.parse(await get('.metadata.annotations', 'node/n1'))).not.toHaveProperty([
    'culvert.io/agent-ready-boot',
  ]);
  const left = JSON.parse(await get('.metadata.annotations', '-n', 'shop', 'pod/p')) as object;
  expect([
    Object.keys(left).includes('ambient.istio.io/redirection'),
    Object.keys(left).includes('own'),
  ]).toEqual([false, true]);
  expect(await plane.kubectl('get', 'configmaps', '-A', '-o', 'name')).not.toContain('culvert-ca-root-cert');
  expect((await plane.kubectl('get', 'secrets', '-n', SYSTEM, '-o', 'name')).trim()).toBe(
    'secret/culvert-ca-secret',
  );
  expect(await plane.kubectl('get', 'authorizationpolicies', '-n', 'shop', '-o', 'name')).toContain(
    'strange',
  );
  expect((await plane.kubectl('get', 'crds', '-o', 'name')).trim().split('\n')).toHaveLength(17);
  expect(await plane.kubectl('get', 'configmap', '-n', SYSTEM, '-o', 'name')).toContain('culvert-uninstall');

  expect(await run('install', '--skip-crds')).toContain(
    'ConfigMap culvert-uninstall of an earlier uninstall removed',
  );
  expect(await plane.kubectl('get', 'configmap', '-n', SYSTEM, '-o', 'name')).not.toContain(
    'culvert-uninstall',
  );
});

test('the accounts of the hooks can do no more', async () => {
  const can = (name: string, ...what: string[]) =>
    plane.kubectl('auth', 'can-i', ...what, '--as', `system:serviceaccount:${SYSTEM}:culvert-${name}`).then(
      (answer) => answer.trim() === 'yes',
      () => false,
    );
  for (const name of ['install', 'uninstall']) {
    expect(await can(name, 'get', 'secret/culvert-ca-secret', '-n', SYSTEM)).toBe(false);
    expect(await can(name, 'delete', 'crd/sidecars.networking.istio.io')).toBe(false);
    expect(await can(name, 'delete', 'secret/culvert-ca-secret', '-n', SYSTEM)).toBe(false);
    expect(await can(name, 'delete', 'pods', '-n', 'shop')).toBe(false);
    expect(await can(name, 'delete', 'configmap/own', '-n', 'shop')).toBe(false);
  }
  expect(await can('install', 'patch', 'crd/other.example.com')).toBe(false);
  expect(await can('uninstall', 'create', 'pods/exec', '-n', 'shop')).toBe(false);
});
