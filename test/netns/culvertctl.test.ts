import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import type { LabNode } from '../lab/index.js';
import { appPort, EchoConnection, type MeshBed, makeMeshBed, spiffe } from './mesh-harness.js';

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
      expect(one.types.map(({ state }) => state)).toEqual(['synced', 'synced']);
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

  test('doctor: this node can carry the mesh, and its agent answers', async () => {
    const findings = await ctlJson<{ check: string; verdict: string }[]>('doctor');
    expect(findings.filter(({ verdict }) => verdict === 'fails')).toEqual([]);
    expect(findings.find(({ check }) => check === 'agent')).toMatchObject({ verdict: 'ok' });
  });
});
