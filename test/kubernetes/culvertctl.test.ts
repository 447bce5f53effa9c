import { type ExecFileException, execFile } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { MESH_NAMESPACE } from '../lab/index.js';
import { type Cluster, startCluster } from './index.js';
import { ClusterMesh } from './mesh.js';

// culvertctl from outside of the cluster, with a kubeconfig: agents through `kubectl port-forward`, which lab kubelets serve.

const program = join(packageRoot(), 'dist/cli/main.js');

let cluster: Cluster;
let mesh: ClusterMesh;

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function ctl(...argv: string[]): Promise<Ran> {
  return ctlIn(cluster.plane.kubeconfig, ...argv);
}

function ctlIn(kubeconfig: string, ...argv: string[]): Promise<Ran> {
  const env = {
    ...process.env,
    NODE_OPTIONS: '',
    CULVERTCTL_KUBECONFIG: kubeconfig,
    CULVERTCTL_KUBECTL: cluster.plane.binaries.kubectl,
  };
  return new Promise((resolve) => {
    const done = (error: ExecFileException | null, out: string, err: string) =>
      resolve({ code: Number(error?.code ?? 0), out, err });
    execFile(process.execPath, [program, ...argv], { env, timeout: 60_000 }, done);
  });
}

beforeAll(async () => {
  cluster = await startCluster({ nodes: ['a', 'b'] });
  mesh = await ClusterMesh.start(cluster);
}, 600_000);

afterAll(() => cluster?.close());

test('status: every agent, as Kubernetes has its pod and as it says itself; what is not well is said', async () => {
  const { code, out } = await ctl('status');
  expect(out).toMatch(/^a +culvert-agent-\S+ +yes +/m);
  expect(out).toMatch(/^b +culvert-agent-\S+ +yes +/m);
  // The controller of this lab is no pod.
  expect(out).toContain('no controller is ready');
  expect(code).toBe(1);
  const { agents, wantedAgents } = JSON.parse((await ctl('status', '-o', 'json')).out) as {
    agents: { pod: { node: string }; dump: { xds: { isConnected: boolean } } }[];
    wantedAgents: number;
  };
  expect(wantedAgents).toBe(2);
  expect(agents.map(({ pod, dump }) => [pod.node, dump.xds.isConnected])).toEqual([
    ['a', true],
    ['b', true],
  ]);
}, 120_000);

test('commands ask the agent of --node: a node, its pod, or any pod there', async () => {
  const pod = await mesh.agentPodOn(cluster.nodes[1]!);
  for (const where of ['b', pod, `${MESH_NAMESPACE}/${pod}`]) {
    const { code, out } = await ctl('log', '--node', where);
    expect({ code, out }).toEqual({ code: 0, out: 'level is info\n' });
  }
  expect((await ctl('log', 'debug', '--node', 'b')).out).toBe('level is debug\n');
  expect((await ctl('log', '--node', 'a')).out).toBe('level is info\n');
  expect((await ctl('bpf', '--node', 'a')).out).toMatch(/^sk_lookup +yes$/m);
  expect((await ctl('pods', '--node', 'a')).out).toMatch(/^NAMESPACE +POD +STATE/);
  expect((await ctl('connections', '--node', 'a', '-o', 'json')).out).toBe('[]\n');
  expect((await ctl('cert', '--node', 'a')).code).toBe(0);
  expect(await ctl('status', '--node', 'a')).toMatchObject({
    out: expect.stringMatching(/^node +a +trust domain cluster\.local$/m),
  });
  // Every agent gives the same answer.
  expect((await ctl('proxy', 'config', 'services')).out).toMatch(/^default +kubernetes\.default\.svc/m);
}, 180_000);

test('who is meant has to be said, and who is not there is said', async () => {
  expect(await ctl('pods')).toMatchObject({ code: 1, err: expect.stringMatching(/--node says: a, b\n$/) });
  expect(await ctl('pods', '--node', 'c')).toMatchObject({
    code: 1,
    err: expect.stringContaining('c in culvert-system'),
  });
  expect(await ctl('pods', '--node', 'a', '-i', 'elsewhere')).toMatchObject({
    code: 1,
    err: expect.stringContaining('namespace elsewhere'),
  });
  expect(await ctl('pods', '--node', 'a', '--kubectl', '/nowhere/kubectl')).toMatchObject({
    code: 1,
    err: expect.stringContaining('/nowhere/kubectl is not found'),
  });
  const nobody = cluster.plane.kubeconfigOf('nobody', cluster.plane.credentials({ user: 'nobody' }));
  expect(await ctlIn(nobody, 'pods', '--node', 'a')).toMatchObject({
    code: 1,
    err: expect.stringMatching(/forbidden.*cannot list resource "pods"/i),
  });
}, 120_000);

test('doctor: Kubernetes, what it serves, the pods of the mesh, and the kernel of a node', async () => {
  const { out } = await ctl('doctor', '--node', 'a', '-o', 'json');
  const findings = JSON.parse(out) as { check: string; verdict: string; found: string }[];
  const verdicts = Object.fromEntries(findings.map(({ check, verdict }) => [check, verdict]));
  expect(verdicts).toMatchObject({
    Kubernetes: 'ok',
    'constrained impersonation': 'ok',
    ValidatingAdmissionPolicy: 'ok',
    agents: 'ok',
    controllers: 'fails',
    'capture on a': 'ok',
  });
}, 120_000);
