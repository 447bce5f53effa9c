import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { added, bookmark, deleted, FakeApiServer, send, sendJson } from '../../mesh/kube/fake-api-server.js';
import { createLog } from '../../mesh/log/index.js';
import { until } from '../../test/support/wait.js';
import { KubernetesPodSource } from './kubernetes-pod-source.js';
import { PodSnapshot } from './pod-snapshot.js';

const log = createLog({ level: 'silent', component: 'test' });
let folder: string;
let server: FakeApiServer;
let snapshot: PodSnapshot;
let source: KubernetesPodSource;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-pods-'));
  server = new FakeApiServer();
  const url = `http://127.0.0.1:${await server.start()}`;
  const kubeconfig = join(folder, 'kubeconfig');
  const config = {
    'current-context': 'c',
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    clusters: [{ name: 'c', cluster: { server: url } }],
    users: [{ name: 'u', user: { token: 'secret' } }],
  };
  writeFileSync(kubeconfig, JSON.stringify(config), { mode: 0o600 });
  snapshot = new PodSnapshot({ folder, nodeName: 'a' }, { liveUids: () => [marked.metadata.uid], log });
  source = new KubernetesPodSource({ kubeconfig, nodeName: 'a' }, { log, snapshot });
});

afterEach(async () => {
  await source.stop();
  await server.stop();
  rmSync(folder, { recursive: true });
});

const marked = {
  metadata: {
    name: 'one',
    labels: { 'istio.io/dataplane-mode': 'none' },
    namespace: 'shop',
    uid: '11111111-2222-3333-4444-555555555555',
    resourceVersion: '7',
    annotations: { 'ambient.istio.io/redirection': 'enabled' },
  },
  spec: { nodeName: 'a', containers: [] },
  status: { phase: 'Running' },
};

test.each([
  ['that was never started', false],
  ['that has started', true],
])(
  'a source %s takes back what agents before it have told, as soon as the API server tells its pods',
  async (_what, isStarted) => {
    let tellPods = () => {};
    server.script = ({ path, method }, response) => {
      if (method === 'PATCH') sendJson(response, {});
      else if (path === '/api/v1/namespaces') send(response, bookmark(7, true));
      else tellPods = () => send(response, added(marked), bookmark(7, true));
    };
    if (isStarted) void source.start(() => {});
    let isReleased = false;
    const releasing = source.release().then(() => {
      isReleased = true;
    });
    await until(() => server.requests.length === 2);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(isReleased).toBe(false);
    tellPods();
    await releasing;
    const written = server.requests.filter(({ method }) => method === 'PATCH');
    expect(written).toMatchObject([
      {
        path: '/api/v1/namespaces/shop/pods/one/status',
        body: { metadata: { annotations: { 'ambient.istio.io/redirection': null } } },
      },
    ]);
  },
);

test('who gives way saves what it has seen so far, and nothing later: the next agent does', async () => {
  let tell = (..._events: object[]) => {};
  server.script = ({ path }, response) => {
    if (path === '/api/v1/namespaces') send(response, bookmark(7, true));
    else {
      tell = (...events) => send(response, ...events);
      tell(added(marked), bookmark(7, true));
    }
  };
  let seen = -1;
  await source.start((pods) => {
    seen = pods.length;
  });
  expect(seen).toBe(1);
  source.stopNoting();
  expect(snapshot.load()?.length).toBe(1);
  tell(deleted(marked));
  await until(() => seen === 0);
  await source.stop();
  expect(snapshot.load()?.length).toBe(1);
});
