import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cluster } from './cluster.js';
import { stuckHooks } from './hooks.js';
import { Kubectl } from './kubectl.js';

// With a kubectl of our own making; test/kubernetes/culvertctl.test.ts has the real one.

const old = '2026-11-23T00:00:00Z';
const young = '2026-11-23T01:00:00Z';

const pod = (name: string, nodeName: string, ready: string, created: string, deletionTimestamp?: string) => ({
  metadata: { name, creationTimestamp: created, ...(deletionTimestamp ? { deletionTimestamp } : {}) },
  spec: { nodeName },
  status: {
    phase: 'Running',
    conditions: [{ type: 'Ready', status: ready }],
    containerStatuses: [{ restartCount: 2 }],
  },
});

describe('a cluster by kubectl', () => {
  let folder: string;
  let server: Server;
  let asked: string[];

  /** Answers `get` with the pods, forwards every port to our server, and notes what it was called with. */
  function clusterOf(pods: readonly object[], extra = ''): { cluster: Cluster; calls: () => string } {
    writeFileSync(join(folder, 'pods.json'), JSON.stringify({ items: pods }));
    const { port } = server.address() as AddressInfo;
    const program = join(folder, 'kubectl');
    const script = `#!/bin/sh
echo "$*" >>${folder}/calls
${extra}
case "$*" in
  *port-forward*) echo "Forwarding from 127.0.0.1:${port} -> 15000"; echo $$ >${folder}/pid; exec sleep 60 ;;
  *) cat ${folder}/pods.json ;;
esac
`;
    writeFileSync(program, script, { mode: 0o755 });
    const kubectl = new Kubectl({ program, kubeconfig: '/k.yaml', context: 'prod' });
    return {
      cluster: new Cluster({ namespace: 'mesh' }, { kubectl }),
      calls: () => readFileSync(join(folder, 'calls'), 'utf8'),
    };
  }

  async function forwardEnds(): Promise<void> {
    const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'));
    for (let i = 0; i < 100 && isAlive(pid); i++) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(isAlive(pid)).toBe(false);
  }

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'culvertctl-'));
    asked = [];
    server = createServer((request, answer) => {
      asked.push(request.url!);
      answer.end('{"a":1}');
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  });
  afterEach(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });

  test('asks the agent that serves, not the one that drains, by one port-forward that ends with it', async () => {
    const { cluster, calls } = clusterOf([
      pod('culvert-agent-old', 'a', 'True', old, young),
      pod('culvert-agent-new', 'a', 'True', young),
      pod('culvert-agent-b', 'b', 'True', old),
    ]);
    const agent = cluster.agent('a', false);
    expect(await agent.json('/one')).toEqual({ a: 1 });
    expect(await agent.json('/two')).toEqual({ a: 1 });
    expect(asked).toEqual(['/one', '/two']);
    const common = '--kubeconfig /k.yaml --context prod';
    expect(calls().trim().split('\n')).toEqual([
      `${common} get pods -n mesh -l app.kubernetes.io/name=culvert-agent -o json`,
      `${common} port-forward -n mesh pod/culvert-agent-new :15000 --address 127.0.0.1`,
    ]);
    cluster.close();
    await forwardEnds();
  });

  test('each of many is asked by a port-forward that ends with the answer', async () => {
    const { cluster } = clusterOf([pod('culvert-agent-a', 'a', 'True', old)]);
    const [agent] = await cluster.pods('agent');
    expect(await cluster.ask('agent', agent!, (admin) => admin.json('/one'))).toEqual({ a: 1 });
    await forwardEnds();
    const failing = cluster.ask('agent', agent!, () => Promise.reject(new Error('no')));
    await expect(failing).rejects.toThrow('no');
    await forwardEnds();
    cluster.close();
  });

  test('of several nodes one has to be named, where their answers differ', async () => {
    const { cluster } = clusterOf([
      pod('culvert-agent-a', 'a', 'False', old),
      pod('culvert-agent-b', 'b', 'True', old),
    ]);
    await expect(cluster.agent('', false).json('/')).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining('a, b'),
    });
    // Whichever is ready.
    expect(await cluster.agent('', true).json('/any')).toEqual({ a: 1 });
    await expect(cluster.agent('c', false).json('/')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    cluster.close();
  });

  test('hooks of the chart that are stuck, with what keeps their pod; nothing where Jobs may not be read', async () => {
    const waiting = { state: { waiting: { reason: 'ErrImagePull', message: 'no such image' } } };
    const answers = {
      jobs: [
        { metadata: { name: 'culvert-install' }, status: {} },
        { metadata: { name: 'culvert-uninstall' }, status: { failed: 1 } },
        { metadata: { name: 'another' }, status: {} },
      ],
      pods: [
        {
          metadata: { labels: { 'batch.kubernetes.io/job-name': 'culvert-install' } },
          status: { containerStatuses: [waiting] },
        },
      ],
      events: [
        { involvedObject: { kind: 'Job', name: 'culvert-uninstall' }, message: 'violates PodSecurity' },
      ],
    };
    const cases = Object.entries(answers).map(
      ([kind, items]) => `*'get ${kind} '*) echo '${JSON.stringify({ items })}'; exit ;;`,
    );
    const { cluster } = clusterOf([], `case "$*" in\n${cases.join('\n')}\nesac`);
    expect(await stuckHooks(cluster)).toEqual([
      { job: 'culvert-install', why: 'ErrImagePull: no such image' },
      { job: 'culvert-uninstall', why: 'violates PodSecurity' },
    ]);
    const { cluster: closed } = clusterOf([], 'echo "jobs is forbidden" >&2; exit 1');
    expect(await stuckHooks(closed)).toEqual([]);
  });

  test('what kubectl complains of is what is said', async () => {
    const { cluster } = clusterOf([], 'echo "error: You must be logged in to the server" >&2; exit 1');
    await expect(cluster.pods('agent')).rejects.toMatchObject({
      code: 'CLUSTER',
      message: expect.stringContaining('You must be logged in'),
    });
    const missing = new Kubectl({ program: join(folder, 'nothing'), kubeconfig: '', context: '' });
    await expect(missing.text('version')).rejects.toMatchObject({
      code: 'CLUSTER',
      message: expect.stringContaining('--kubectl'),
    });
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
