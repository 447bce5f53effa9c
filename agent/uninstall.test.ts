import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import {
  added,
  bookmark,
  deleted,
  FakeApiServer,
  item,
  send,
  sendJson,
} from '../mesh/kube/fake-api-server.js';
import { createLog } from '../mesh/log/index.js';
import { until } from '../test/support/wait.js';
import { Uninstall } from './uninstall.js';

// With events as only a script can time them; test/kubernetes/agent-uninstall.test.ts has the real thing.

const marker = (uid: string) => item('culvert-uninstall', 3, {}, uid);

let folder: string;
let server: FakeApiServer;
let uninstall: Uninstall;
let tell: (...events: object[]) => void;
let released: number;
let withdrawn: number;
let failures: number;

const reports = () => server.requests.filter(({ method }) => method === 'PATCH');

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-uninstall-'));
  [released, withdrawn, failures] = [0, 0, 0];
  tell = () => {};
  server = new FakeApiServer();
  server.script = ({ method }, response) => {
    if (method === 'PATCH') return sendJson(response, {});
    tell = (...events) => send(response, ...events);
    return tell(bookmark(2, true));
  };
  const url = `http://127.0.0.1:${await server.start()}`;
  const config = {
    'current-context': 'c',
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    clusters: [{ name: 'c', cluster: { server: url } }],
    users: [{ name: 'u', user: { token: 'secret' } }],
  };
  const kubeconfig = join(folder, 'kubeconfig');
  writeFileSync(kubeconfig, JSON.stringify(config), { mode: 0o600 });
  const runDir = join(folder, 'run');
  mkdirSync(runDir);
  writeFileSync(join(runDir, 'pods.json'), '');
  uninstall = new Uninstall(
    { kubeconfig, podNamespace: 'shop', node: 'a', runDir },
    {
      release: async () => {
        released++;
        if (failures-- > 0) throw new Error('not yet');
      },
      onWithdrawn: () => {
        withdrawn++;
      },
      log: createLog({ level: 'silent', component: 'test' }),
    },
  );
  await uninstall.start();
  await until(() => server.requests.length === 1);
});

afterEach(async () => {
  uninstall.stop();
  await server.stop();
  rmSync(folder, { recursive: true });
});

test('the marker releases the node, once it can be, and the node is told; its folder is gone', async () => {
  failures = 1;
  tell(added(marker('one')));
  await until(() => uninstall.isMarked && released === 1);
  expect(reports()).toEqual([]);
  await until(() => reports().length === 1);
  expect(released).toBe(2);
  expect(reports()[0]).toMatchObject({
    path: '/api/v1/namespaces/shop/configmaps/culvert-uninstall',
    body: { data: { a: 'released' } },
  });
  expect(readdirSync(folder)).toEqual(['kubeconfig']);
});

test('another marker in place of the first, seen in one step, is told, too: nothing is withdrawn', async () => {
  tell(added(marker('one')));
  await until(() => reports().length === 1);
  tell(deleted(marker('one')), added(marker('two')));
  await until(() => reports().length === 2);
  expect([released, withdrawn, uninstall.isMarked]).toEqual([1, 0, true]);
});

test('a marker that is taken away is withdrawn; who has stopped sees none', async () => {
  tell(added(marker('one')));
  await until(() => reports().length === 1);
  tell(deleted(marker('one')));
  await until(() => withdrawn === 1);
  tell(added(marker('two')));
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect([released, reports().length]).toEqual([1, 1]);
});
