import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { type LabNode, waitFor } from '../lab/index.js';
import { appPort, EchoConnection, type MeshBed, makeMeshBed, spiffe, talk } from './mesh-harness.js';

// culvertctl on the nodes of a mesh at work: what it reads is what agents and controller really say.

const program = join(packageRoot(), 'cli/culvertctl');

describe('culvertctl', () => {
  let bed: MeshBed;
  let node: LabNode;

  const ctl = (...argv: string[]) => node.output([program, ...argv]);
  const ctlJson = async <Shape>(...argv: string[]) => JSON.parse(await ctl(...argv, '-o', 'json')) as Shape;

  beforeAll(async () => {
    bed = await makeMeshBed();
    node = bed.nodes[0];
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  test('status: the node is well, and the controller knows both agents', async () => {
    expect(await ctl('status')).toMatch(/^pods captured +1 /m);
    const { agent } = await ctlJson<{ agent: { xds: unknown } }>('status');
    expect(agent.xds).toMatchObject({ isConnected: true, isReady: true });
    const control = bed.lab.nodes.at(-1)!;
    const { controller } = JSON.parse(await control.output([program, 'status', '-o', 'json'])) as {
      controller: { agents: { node: string; types: { state: string }[] }[] };
    };
    expect(controller.agents.map((one) => one.node).toSorted()).toEqual(bed.nodes.map(({ name }) => name));
    for (const one of controller.agents)
      expect([...new Set(one.types.map(({ state }) => state))]).toEqual(['synced']);
  });

  test('pods and connections: the captured pod, and its open connection with its peer', async () => {
    expect(await ctl('pods')).toMatch(/^shop +client +captured/m);
    const echo = await EchoConnection.open(bed.client, { host: bed.server.ip, port: appPort });
    await echo.say('for-culvertctl');
    const [row] = await ctlJson<Record<string, unknown>[]>('connections', '--pod', 'shop/client');
    expect(row).toMatchObject({
      direction: 'outbound',
      pod: 'shop/client',
      via: expect.stringMatching(/^hbone /),
    });
    expect(row!['bytesOut'] as number).toBeGreaterThan(0);
    await echo.close();
  });

  test('proxy config, cert, bpf and log', async () => {
    const workloads = await ctlJson<{ name: string; tunnelProtocol: string }[]>('proxy', 'config');
    expect(workloads.find(({ name }) => name === 'server')).toMatchObject({ tunnelProtocol: 'hbone' });
    expect(await ctl('cert')).toMatch(new RegExp(`^${spiffe('client')} +valid +2[34]h`, 'm'));
    expect(await ctl('bpf')).toMatch(/^sk_lookup +yes/m);
    expect(await ctl('log', 'debug')).toBe('level is debug\n');
    expect(await ctl('log', 'info')).toBe('level is info\n');
  });

  test('authz explain: the policy and the rule that decide, as the connection then shows', async () => {
    const between = ['--from', 'shop/client', '--to', 'shop/server', '--port', String(appPort)];
    expect(await ctl('authz', 'explain', ...between)).toMatch(
      new RegExp(`^${spiffe('client')} → ${bed.server.ip}:${appPort}: allowed, no-allow-policy$`, 'm'),
    );
    bed.lab.manifests.apply({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'no-clients', namespace: 'shop' },
      spec: {
        selector: { matchLabels: { app: 'server' } },
        action: 'DENY',
        rules: [
          { from: [{ source: { namespaces: ['legacy'] } }] },
          { from: [{ source: { principals: ['cluster.local/ns/shop/sa/client'] } }] },
        ],
      },
    });
    const explain = async () => await node.exec([program, 'authz', 'explain', ...between]);
    await waitFor('the policy to be in force', async () => (await explain()).code === 1);
    expect((await explain()).stdout).toMatch(/denied, .*explicitly denied by: shop\/no-clients.*rule 1\)/);
    expect(await talk(bed.client, { host: bed.server.ip, port: appPort, line: 'peer' })).not.toMatchObject({
      ended: 'fin',
    });
    bed.lab.manifests.delete('AuthorizationPolicy', 'no-clients', 'shop');
    await waitFor('the policy to be gone', async () => (await explain()).code === 0);
    const unknown = await node.exec([program, 'authz', 'explain', ...between, '--to', 'shop/nobody']);
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('no workload shop/nobody') });
  });

  test('doctor: this node can carry the mesh, and its agent answers', async () => {
    const findings = await ctlJson<{ check: string; verdict: string }[]>('doctor');
    expect(findings.filter(({ verdict }) => verdict === 'fails')).toEqual([]);
    expect(findings.find(({ check }) => check === 'agent')).toMatchObject({ verdict: 'ok' });
  });
});
