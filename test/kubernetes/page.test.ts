import { execFile } from 'node:child_process';
import { readFileSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { type Cluster, startCluster } from './index.js';

// docs/kubernetes.md, as it is written: each of its blocks in a shell, in its order.

const root = packageRoot();
const blocks = [
  ...readFileSync(join(root, 'docs/kubernetes.md'), 'utf8').matchAll(/```sh\n([\s\S]*?)```/g),
].map((match) => match[1]!);

let cluster: Cluster;
let env: NodeJS.ProcessEnv;

beforeAll(async () => {
  cluster = await startCluster({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  const { kubeconfig, binaries } = cluster.plane;
  const bin = cluster.lab.names.state;
  for (const name of ['kubectl', 'helm'] as const) symlinkSync(binaries[name], join(bin, name));
  symlinkSync(join(root, 'cli/culvertctl'), join(bin, 'culvertctl'));
  const path = [bin, dirname(process.execPath), process.env['PATH']].join(':');
  env = { ...process.env, NODE_OPTIONS: '', KUBECONFIG: kubeconfig, PATH: path };
}, 3_600_000);

afterAll(() => cluster?.close());

/** Runs the block with this text in it; what it printed. Whatever fails, and is not said to fail, rejects. */
async function run(text: string): Promise<string> {
  const block = blocks.find((one) => one.includes(text))!;
  // Not into this machine's folders; and a denial is what it is to say.
  const script = block
    .replace(/^ln -s .*$/m, '')
    .replace(/^(culvertctl authz explain .*)$/m, 'sleep 2; ! $1')
    .replace(/^kubectl label .*=ambient$/m, '$&; sleep 5');
  const bash = ['-euo', 'pipefail', '-c', script];
  return (await promisify(execFile)('bash', bash, { cwd: root, env, timeout: 280_000 })).stdout;
}

test('installing it: all is well', async () => {
  expect(await run('helm install')).toContain('STATUS: deployed');
  const said = await run('culvertctl status ');
  expect(said).toMatch(/^[ab] +culvert-agent-\S+ +yes +synced/m);
  expect(said).toMatch(/^Kubernetes +ok /m);
}, 300_000);

test('pods in the mesh, unrestarted: identities, and what a policy refuses', async () => {
  await run('create deployment web');
  const said = await run('logs -l app.kubernetes.io/name=culvert-agent');
  expect(said).toContain('"src.identity":"spiffe://cluster.local/ns/shop/sa/default"');
  expect(said).toMatch(/^shop +shell +captured/m);
  expect(said).toMatch(/^spiffe:\/\/cluster\.local\/ns\/shop\/sa\/default +valid/m);
  expect(await run('authz explain')).toMatch(/denied, .*allow policies exist, but none allowed/);
}, 300_000);

test('upgrade, rollback, uninstall', async () => {
  expect(await run('helm upgrade')).toContain('Rollback was a success');
  expect(await run('helm uninstall')).toContain('uninstalled');
}, 600_000);

test('every block was run', () => {
  expect(blocks).toHaveLength(7);
});
