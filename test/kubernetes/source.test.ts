import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import {
  API_CLIENT_DEFAULTS,
  ApiClient,
  type ClusterAccess,
  KUBERNETES_SOURCE_DEFAULTS,
  KubernetesSource,
  type KubernetesSourceOptions,
  kubeconfigAccess,
  watchedKindsOf,
} from '../../mesh/kube/index.js';
import { createLog } from '../../mesh/log/index.js';
import { decoderOf, type KindDecoder, type SourceBatch } from '../../mesh/manifests/index.js';
import { waitFor } from '../lab/index.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';
import { Way } from './way.js';

// Source `kubernetes` against a real API server.

const log = createLog({ level: 'silent', component: 'test' });
const PATIENCE = { timeoutMs: 60_000, intervalMs: 20 };

const data: KindDecoder<string>['decode'] = (fields) => fields.object('data').text('text');
const spec: KindDecoder<string>['decode'] = (fields) => fields.object('spec').text('size');
const KINDS = new Map<string, KindDecoder<string>>([
  ['v1 ConfigMap', { namespaced: true, nameForm: 'subdomain', decode: data }],
  ['example.org/v2 Gadget', { namespaced: true, nameForm: 'subdomain', decode: spec }],
  ['example.org/v1 Gadget', { namespaced: true, nameForm: 'subdomain', decode: spec }],
]);

let plane: ControlPlane;
let way: Way;
let client: ApiClient;
let source: KubernetesSource<string>;
let batches: SourceBatch<string>[];

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  await plane.kubectl('create', 'namespace', 'shop');
}, 3_600_000);

afterAll(() => plane.close());

beforeEach(async () => {
  way = await Way.to(plane.url);
});

afterEach(async () => {
  source.stop();
  client.close();
  way.close();
  await plane.kubectl('delete', 'configmap', '--all', '-n', 'shop', '--wait=false');
});

async function start(options: Partial<KubernetesSourceOptions> = {}, access?: ClusterAccess): Promise<void> {
  batches = [];
  client = new ApiClient(
    { ...API_CLIENT_DEFAULTS, userAgent: 'culvert-test' },
    { access: way.access(access ?? kubeconfigAccess(plane.kubeconfig)) },
  );
  const kinds = watchedKindsOf(KINDS.keys()).map((kind) => ({ ...kind, namespace: 'shop' }));
  source = new KubernetesSource<string>(
    { ...KUBERNETES_SOURCE_DEFAULTS, mostMs: 2_000, absentRetryMs: 1_000, kinds, ...options },
    { client, decode: decoderOf(KINDS), onBatch: (batch) => batches.push(batch), log },
  );
  await source.start();
}

const configMap = (name: string, text: string): object => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace: 'shop' },
  data: { text },
});
const key = (name: string) => `ConfigMap/shop/${name}`;
const maps = '/api/v1/namespaces/shop/configmaps';
const watch = () => source.status[0]!;
const seen = (name: string, text: string | undefined) =>
  waitFor(`${name} to be ${text?.slice(0, 20)}`, () => source.get(key(name)) === text, PATIENCE);
const interrupted = () => waitFor('an interruption', () => watch().state === 'interrupted', PATIENCE);
const isWatching = () => waitFor('a watch', () => watch().state === 'watching', PATIENCE);

describe.each([true, false])('a list that is streamed: %s', (streamsLists) => {
  test('then every change, in order', async () => {
    await plane.apply(configMap('before', 'there'));
    await start({ streamsLists });
    expect(batches).toHaveLength(1);
    expect(source.get(key('before'))).toBe('there');
    await plane.api.post(maps, configMap('a', '0'));
    for (let i = 1; i <= 50; i++) await plane.api.patch(`${maps}/a`, { data: { text: String(i) } });
    await plane.api.post(maps, configMap('b', 'b'));
    await plane.api.delete(`${maps}/a`);
    await plane.api.post(maps, configMap('a', 'new'));
    await seen('a', 'new');
    const told = batches.map(({ upserted }) => upserted.get(key('a'))).filter((text) => text !== undefined);
    const numbers = told.slice(0, -1).map(Number);
    expect(numbers).toEqual([...numbers].sort((x, y) => x - y));
    expect(numbers.length).toBeGreaterThan(5);
    expect(source.get(key('b'))).toBe('b');
    expect(watch()).toMatchObject({ state: 'watching', listings: 1 });
  });
});

test('an object of 1 MB', async () => {
  await start();
  const large = 'x'.repeat(1_000_000);
  await plane.api.post(maps, configMap('large', large));
  await seen('large', large);
  await plane.api.patch(`${maps}/large`, { data: { text: 'small' } });
  await seen('large', 'small');
});

describe('a kind of a CRD', () => {
  const versions = (names: readonly string[]) =>
    names.map((name) => ({
      name,
      served: true,
      storage: name === 'v1',
      schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
    }));
  const crd = (names: readonly string[]) => ({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'gadgets.example.org' },
    spec: {
      group: 'example.org',
      names: { kind: 'Gadget', plural: 'gadgets', singular: 'gadget', listKind: 'GadgetList' },
      scope: 'Namespaced',
      versions: versions(names),
    },
  });
  const gadget = (size: unknown) => ({
    apiVersion: 'example.org/v1',
    kind: 'Gadget',
    metadata: { name: 'g', namespace: 'shop' },
    spec: { size },
  });
  const gadgets = '/apis/example.org/v1/namespaces/shop/gadgets';
  const size = (text: string | undefined) =>
    waitFor(`size ${text}`, () => source.get('Gadget/shop/g') === text, PATIENCE);
  const ofGadgets = () => source.status[1]!;

  test('may come later, be malformed, lose the version that is watched, go with its CRD and come again', async () => {
    await start();
    expect(ofGadgets().state).toBe('absent');
    await plane.apply(crd(['v1', 'v2']));
    await waitFor('the CRD to be watched', () => ofGadgets().state === 'watching', PATIENCE);
    expect(ofGadgets().apiVersion).toBe('example.org/v2');
    await plane.api.post(gadgets, gadget('s'));
    await size('s');

    await plane.api.patch(`${gadgets}/g`, { spec: { size: 7 } });
    await waitFor('a problem', () => source.problems.some(({ kind }) => kind === 'Gadget'), PATIENCE);
    expect(source.problems).toContainEqual(
      expect.objectContaining({
        kind: 'Gadget',
        name: 'shop/g',
        field: 'spec.size',
        reason: 'must be a text, not 7',
      }),
    );
    expect(source.get('Gadget/shop/g')).toBe('s');
    await plane.api.patch(`${gadgets}/g`, { spec: { size: 'm' } });
    await size('m');

    await plane.apply(crd(['v1']));
    way.drop();
    await waitFor('the older version', () => ofGadgets().apiVersion === 'example.org/v1', PATIENCE);
    expect(source.get('Gadget/shop/g')).toBe('m');
    await plane.api.patch(`${gadgets}/g`, { spec: { size: 'l' } });
    await size('l');

    await plane.kubectl('delete', 'crd', 'gadgets.example.org');
    await size(undefined);
    await waitFor('it to be absent', () => ofGadgets().state === 'absent', PATIENCE);
    await plane.apply(crd(['v1']));
    await waitFor('the CRD', () => plane.api.post(gadgets, gadget('again')).then(() => true), PATIENCE);
    await size('again');
  }, 120_000);
});

describe('what was seen stays, and catches up', () => {
  beforeEach(async () => {
    await plane.api.post(maps, configMap('kept', '1'));
    await plane.api.post(maps, configMap('gone', '1'));
  });

  const change = async () => {
    await plane.api.patch(`${maps}/kept`, { data: { text: '2' } });
    await plane.api.delete(`${maps}/gone`);
  };
  const caughtUp = async () => {
    await seen('kept', '2');
    await seen('gone', undefined);
  };

  test('when the network is cut: from where it was, without a list', async () => {
    await start();
    way.cut();
    await interrupted();
    await change();
    expect([source.get(key('kept')), source.get(key('gone'))]).toEqual(['1', '1']);
    expect(source.problems.map(({ kind }) => kind)).toContain('ConfigMap');
    way.mend();
    await caughtUp();
    expect(watch().listings).toBe(1);
    await waitFor('no problem to be left', () => source.problems.length === 0, PATIENCE); // each kind comes back by itself
  });

  test('when a watch falls silent', async () => {
    await start({ maxSilenceMs: 3_000 });
    way.stall();
    await change();
    await caughtUp();
  });

  test('when the API server crashes, and its restart takes a while', async () => {
    await start();
    await plane.stopComponent('apiServer', 'SIGKILL');
    await interrupted();
    expect([source.get(key('kept')), source.get(key('gone'))]).toEqual(['1', '1']);
    await plane.startComponent('apiServer');
    await change();
    await caughtUp();
  });

  test('when etcd is restarted', async () => {
    await start();
    await plane.stopComponent('etcd', 'SIGKILL');
    await plane.startComponent('etcd');
    await waitFor('a write', () => change().then(() => true), PATIENCE);
    await caughtUp();
  }, 120_000);

  test('when history was compacted meanwhile: listed anew, told what differs', async () => {
    await start();
    way.cut();
    await interrupted();
    await change();
    await compact();
    await plane.stopComponent('apiServer', 'SIGKILL'); // its own memory of what happened goes with it
    await plane.startComponent('apiServer');
    const before = batches.length;
    way.mend();
    await caughtUp();
    expect(watch().listings).toBe(2);
    expect(batches.slice(before).flatMap(({ upserted }) => [...upserted])).toEqual([[key('kept'), '2']]);
    expect(batches.slice(before).flatMap(({ removed }) => removed)).toEqual([key('gone')]);
  }, 120_000);

  /** All of etcd's history up to now. */
  const compact = async () => {
    const curl = (path: string, body: object) =>
      plane.machine.output([
        'curl',
        '-sf',
        `http://127.0.0.1:2379/v3/kv/${path}`,
        '-d',
        JSON.stringify(body),
      ]);
    const range = JSON.parse(await curl('range', { key: Buffer.from('a').toString('base64') })) as {
      header: { revision: string };
    };
    await curl('compaction', { revision: range.header.revision, physical: true });
  };
});

test('a token that is no longer good is read anew', async () => {
  await plane.kubectl('create', 'serviceaccount', 'reader', '-n', 'shop');
  await plane.kubectl('create', 'secret', 'generic', 'bound', '-n', 'shop');
  const verbs = ['list', 'watch'];
  await plane.apply({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'Role',
    metadata: { name: 'reader', namespace: 'shop' },
    rules: [
      { apiGroups: [''], resources: ['configmaps'], verbs },
      { apiGroups: ['example.org'], resources: ['gadgets'], verbs },
    ],
  });
  await plane.kubectl(
    'create',
    'rolebinding',
    'reader',
    '-n',
    'shop',
    '--role=reader',
    '--serviceaccount=shop:reader',
  );
  const token = (...more: string[]) => plane.kubectl('create', 'token', 'reader', '-n', 'shop', ...more);
  const folder = plane.ca.folder;
  writeFileSync(
    join(folder, 'token'),
    await token('--bound-object-kind=Secret', '--bound-object-name=bound'),
  );
  const cluster = { server: plane.url, 'certificate-authority': plane.ca.certificateFile };
  const kubeconfig = join(folder, 'reader.kubeconfig');
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      'current-context': 'x',
      contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
      clusters: [{ name: 'x', cluster }],
      users: [{ name: 'x', user: { tokenFile: 'token' } }],
    }),
  );
  await start({}, kubeconfigAccess(kubeconfig));
  await plane.kubectl('delete', 'secret', 'bound', '-n', 'shop');
  await waitFor(
    'the token to be refused',
    async () => {
      way.drop();
      await interrupted();
      return watch().trouble.includes('Unauthorized');
    },
    PATIENCE,
  );
  writeFileSync(join(folder, 'token'), await token());
  await isWatching();
  await plane.api.post(maps, configMap('after', '1'));
  await seen('after', '1');

  // Without a role: refused, said, and nothing forgotten.
  await plane.kubectl('delete', 'rolebinding', 'reader', '-n', 'shop');
  way.drop();
  await waitFor('a refusal', () => watch().trouble.includes('forbidden'), PATIENCE);
  expect(source.get(key('after'))).toBe('1');
}, 120_000);

test('5,000 objects of 10 kB are listed with little memory', async () => {
  await start();
  const text = 'x'.repeat(10_000);
  let next = 0;
  const make = async () => {
    while (next < 5_000) await plane.api.post(maps, configMap(`map-${next++}`, text));
  };
  await Promise.all(Array.from({ length: 12 }, make));
  await waitFor('all of them', () => watch().objects >= 5_000, PATIENCE);
  const program = fileURLToPath(new URL('list-main.js', import.meta.url));
  for (const how of ['stream', 'pages']) {
    // All the texts together would be 50 MB.
    const args = ['--max-old-space-size=32', program, plane.kubeconfig, how];
    const { stdout } = await promisify(execFile)(process.execPath, args, {
      env: { ...process.env, NODE_OPTIONS: '' },
    });
    process.stderr.write(`${how}: ${stdout}\n`);
    const { objects, bytes, rssMb } = JSON.parse(stdout) as Record<string, number>;
    expect(objects).toBeGreaterThanOrEqual(5_000);
    expect(bytes).toBeGreaterThanOrEqual(50_000_000);
    expect(rssMb).toBeLessThan(250);
  }
}, 300_000);
