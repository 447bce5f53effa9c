import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { createLog } from '../../mesh/log/index.js';
import { until } from '../../test/support/wait.js';
import { FilesPodSource } from './files-pod-source.js';
import type { LocalPod } from './types.js';

const log = createLog({ level: 'silent', component: 'test' });
let folder: string;
let source: FilesPodSource;
let pods: readonly LocalPod[];
let calls: number;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'culvert-pods-'));
  source = new FilesPodSource({ folder, nodeName: 'node-a' }, { log });
  pods = [];
  calls = 0;
});

afterEach(async () => {
  await source.stop();
  await rm(folder, { recursive: true, force: true });
});

const start = () =>
  source.start((now) => {
    pods = now;
    calls++;
  });

interface PodText {
  node?: string;
  labels?: string;
  annotations?: string;
  spec?: string;
  ip?: string;
  namespace?: string;
}

function pod(name: string, more: PodText = {}): string {
  return `apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: ${more.namespace ?? 'shop'}
  uid: uid-${name}
  labels: {${more.labels ?? ''}}
  annotations: {${more.annotations ?? ''}}
spec:
  nodeName: ${more.node ?? 'node-a'}
  serviceAccountName: account
  ${more.spec ?? ''}
status:
  podIPs: [{ip: ${more.ip ?? '10.0.0.1'}}, {ip: "FD00::0:1"}]
`;
}

const namespace = (name: string, labels = '') =>
  `apiVersion: v1\nkind: Namespace\nmetadata:\n  name: ${name}\n  labels: {${labels}}\n`;
const ambient = 'istio.io/dataplane-mode: ambient';
const none = 'istio.io/dataplane-mode: none';
const enrolled = () => pods.filter((p) => p.enrolled).map((p) => p.name);
const names = () => pods.map((p) => p.name);

test('the pods of this node, from several documents, files and folders, with canonical addresses', async () => {
  await mkdir(join(folder, 'deep/er'), { recursive: true });
  await writeFile(
    join(folder, 'a.yaml'),
    [namespace('shop', ambient), pod('one'), pod('far', { node: 'node-b' })].join('---\n'),
  );
  await writeFile(join(folder, 'deep/er/b.yml'), pod('two', { spec: 'hostNetwork: true' }));
  await writeFile(join(folder, 'c.json'), '{"kind":"Service","metadata":{"name":"x"}}');
  await writeFile(join(folder, 'notes.txt'), '{{{');
  await start();
  expect(pods).toEqual([
    {
      uid: 'uid-one',
      name: 'one',
      namespace: 'shop',
      serviceAccount: 'account',
      addresses: ['10.0.0.1', 'fd00::1'],
      hostNetwork: false,
      exclusions: { outboundPorts: [], outboundRanges: [], inboundPorts: [] },
      dnsCapture: true,
      isEastWestGateway: false,
      fault: '',
      enrolled: true,
      outside: '',
    },
    expect.objectContaining({ name: 'two', hostNetwork: true, enrolled: false, outside: 'host network' }),
  ]);
  expect(source.problems).toEqual([]);
});

test.each([
  ['', '', false],
  [ambient, '', true],
  [none, '', false],
  ['', ambient, true],
  [ambient, none, true],
  [none, ambient, false],
  ['', none, false],
])('dataplane-mode: pod {%s}, namespace {%s}: enrolled %s', async (podLabel, namespaceLabel, expected) => {
  await writeFile(
    join(folder, 'a.yaml'),
    [namespace('shop', namespaceLabel), pod('one', { labels: podLabel })].join('---\n'),
  );
  await start();
  expect(enrolled()).toEqual(expected ? ['one'] : []);
});

test('host network, sidecars and kube-system are never enrolled, whatever their labels', async () => {
  const documents = [
    namespace('kube-system', ambient),
    pod('host', { labels: ambient, spec: 'hostNetwork: true' }),
    pod('sidecar', { labels: ambient, annotations: 'sidecar.istio.io/status: "{}"' }),
    pod('system', { labels: ambient, namespace: 'kube-system' }),
  ];
  await writeFile(join(folder, 'a.yaml'), documents.join('---\n'));
  await start();
  expect(names()).toEqual(['host', 'sidecar', 'system']);
  expect(enrolled()).toEqual([]);
});

test('a static pod goes by the uid that names its cgroup', async () => {
  await writeFile(
    join(folder, 'a.yaml'),
    pod('static', { annotations: 'kubernetes.io/config.hash: 0123abcd' }),
  );
  await start();
  expect(pods[0]!.uid).toBe('0123abcd');
});

test('changes act: a label, a new file, a removed file, a folder made later, a List', async () => {
  await writeFile(join(folder, 'ns.yaml'), namespace('shop'));
  await writeFile(join(folder, 'a.yaml'), pod('one'));
  await start();
  expect(enrolled()).toEqual([]);
  await writeFile(join(folder, 'ns.yaml'), namespace('shop', ambient));
  await until(() => enrolled().includes('one'));
  await mkdir(join(folder, 'later'));
  await writeFile(join(folder, 'later/b.yaml'), pod('two'));
  await until(() => enrolled().includes('two'));
  await rm(join(folder, 'a.yaml'));
  await until(() => !names().includes('one'));
  const items = [pod('three'), pod('four')].map((text) => `- ${text.trimEnd().replaceAll('\n', '\n  ')}`);
  await writeFile(join(folder, '.new'), `kind: List\nitems:\n${items.join('\n')}\n`);
  await rename(join(folder, '.new'), join(folder, 'list.yaml'));
  await until(() => names().join() === 'four,three,two');
});

test('a touched file with the same content is no change', async () => {
  await writeFile(join(folder, 'a.yaml'), pod('one'));
  await start();
  await writeFile(join(folder, 'a.yaml'), pod('one'));
  await writeFile(join(folder, 'b.yaml'), pod('two'));
  await until(() => names().includes('two'));
  expect(calls).toBe(2);
});

test('an invalid object is reported with its field, and its last good version stays', async () => {
  await writeFile(join(folder, 'a.yaml'), [namespace('shop', ambient), pod('one'), pod('two')].join('---\n'));
  await start();
  await writeFile(
    join(folder, 'a.yaml'),
    [namespace('shop', ambient), pod('one', { ip: 'nonsense' }), pod('three')].join('---\n'),
  );
  await until(() => names().includes('three'));
  expect(names()).toEqual(['one', 'three']);
  expect(pods[0]!.addresses).toEqual(['10.0.0.1', 'fd00::1']);
  expect(source.problems).toEqual([
    {
      file: join(folder, 'a.yaml'),
      line: 20,
      kind: 'Pod',
      name: 'shop/one',
      field: 'status.podIPs[0].ip',
      reason: "must be an IP address, not 'nonsense'",
      effect: 'its last good version stays in force',
    },
  ]);
});

test('a pod without an address, or without a uid, is known for what it is', async () => {
  const documents = [
    namespace('shop', ambient),
    pod('one').replace(/status:.*/s, ''),
    pod('host', { spec: 'hostNetwork: true' }).replace(/status:.*/s, ''),
    pod('two').replace(/ {2}uid: .*\n/, ''),
  ];
  await writeFile(join(folder, 'a.yaml'), documents.join('---\n'));
  await start();
  expect(pods.map(({ name, fault }) => [name, fault])).toEqual([
    ['host', ''],
    ['one', 'status.podIPs has no address: the mesh does not know whose its connections are'],
  ]);
  expect(source.problems).toMatchObject([{ name: 'shop/two', field: 'metadata.uid' }]);
});

test('a document that cannot be parsed keeps what its file said before', async () => {
  await writeFile(join(folder, 'a.yaml'), [pod('one'), pod('two')].join('---\n'));
  await start();
  await writeFile(join(folder, 'a.yaml'), [pod('three'), 'kind: Pod\n metadata: [broken'].join('---\n'));
  await until(() => names().includes('three'));
  expect(names()).toEqual(['one', 'three', 'two']);
  expect(source.problems[0]).toMatchObject({ file: join(folder, 'a.yaml'), field: '' });
});

test.each([
  ['labels', { labels: '"istio.io/dataplane-mode": Ambient' }, 'metadata.labels["istio.io/dataplane-mode"]'],
  ['hostNetwork', { spec: 'hostNetwork: "true"' }, 'spec.hostNetwork'],
  ['labels', { labels: 'a: 1' }, 'metadata.labels.a'],
])('an invalid pod (%s) that was never good is not known, so refused', async (_, more, field) => {
  await writeFile(join(folder, 'a.yaml'), pod('one', more));
  await start();
  expect(pods).toEqual([]);
  expect(source.problems).toMatchObject([{ kind: 'Pod', name: 'shop/one', field }]);
});

test('pods of a namespace whose label cannot be read are held back unless their own label decides', async () => {
  const documents = [
    namespace('shop', 'istio.io/dataplane-mode: yes-please'),
    pod('one'),
    pod('two', { labels: none }),
  ];
  await writeFile(join(folder, 'a.yaml'), documents.join('---\n'));
  await start();
  expect(names()).toEqual(['two']);
  expect(source.problems).toMatchObject([{ kind: 'Namespace', name: 'shop' }]);
});

test('one object in two files: the first file is used, the other reported', async () => {
  await writeFile(join(folder, 'a.yaml'), pod('one', { ip: '10.0.0.1' }));
  await writeFile(join(folder, 'b.yaml'), pod('one', { ip: '10.0.0.2' }));
  await start();
  expect(pods.map((p) => p.addresses[0])).toEqual(['10.0.0.1']);
  expect(source.problems).toMatchObject([{ file: join(folder, 'b.yaml'), name: 'shop/one' }]);
});

test('no folder: start fails; a folder that vanishes later leaves the pods as they were', async () => {
  const missing = new FilesPodSource({ folder: join(folder, 'missing'), nodeName: 'n' }, { log });
  await expect(missing.start(() => {})).rejects.toMatchObject({ code: 'MANIFESTS_UNREADABLE' });
  await missing.stop();
  await writeFile(join(folder, 'a.yaml'), pod('one'));
  await start();
  await rename(folder, `${folder}-away`);
  await new Promise((resolve) => setTimeout(resolve, 150));
  expect(names()).toEqual(['one']);
  await rename(`${folder}-away`, folder);
});

test('an alias bomb is an invalid document, not a hang', async () => {
  const lines = ['a: &a [x,x,x,x,x,x,x,x,x,x]'];
  for (let i = 0; i < 9; i++) {
    const [before, now] = [String.fromCharCode(97 + i), String.fromCharCode(98 + i)];
    lines.push(`${now}: &${now} [${new Array(10).fill(`*${before}`).join(',')}]`);
  }
  await writeFile(join(folder, 'a.yaml'), lines.join('\n'));
  await start();
  expect(source.problems).toHaveLength(1);
});
