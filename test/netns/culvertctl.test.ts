import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { type LabNode, waitFor } from '../lab/index.js';
import {
  appPort,
  EchoConnection,
  type MeshBed,
  makeMeshBed,
  notInMesh,
  spiffe,
  talk,
} from './mesh-harness.js';

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
    expect(unknown).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no workload or service shop/nobody'),
    });
  });

  test('where nothing enforces, explain says so, and the controller reports the policy', async () => {
    const out = await bed.nodes[0].pod('out', { namespace: 'shop', labels: { app: 'out', ...notInMesh } });
    const scraped = await bed.nodes[0].pod('scraped', {
      namespace: 'shop',
      annotations: { 'traffic.sidecar.istio.io/excludeInboundPorts': '9090' },
    });
    await bed.mesh.waitUntilCaptured([scraped]);
    bed.lab.manifests.apply({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'nobody', namespace: 'shop' },
      spec: { selector: { matchLabels: { app: 'out' } }, action: 'DENY', rules: [{}] },
    });
    const explain = async (to: string, port: number) =>
      await node.exec([
        program,
        'authz',
        'explain',
        '--from',
        '192.0.2.1',
        '--to',
        to,
        '--port',
        String(port),
      ]);
    await waitFor('the policy to be in force', async () =>
      (await explain('shop/out', 80)).stdout.includes('They would deny'),
    );
    expect(await explain('shop/out', 80)).toMatchObject({ code: 3 });
    expect(await explain('shop/scraped', 9090)).toMatchObject({ code: 3 });
    expect(await explain('shop/scraped', 9091)).toMatchObject({ code: 0 });
    const control = await bed.lab.nodes.at(-1)!.exec([program, 'status']);
    expect(control.stdout).toMatch(
      /^AuthorizationPolicy\/shop\/nobody +spec\.selector +takes pods outside of the mesh: shop\/out +not enforced there/m,
    );
    bed.lab.manifests.delete('AuthorizationPolicy', 'nobody', 'shop');
    await Promise.all([out.delete(), scraped.delete()]);
  });

  test('pods that cannot be used as their manifests say: in pods and status of the node, in status of the controller', async () => {
    const lost = await bed.nodes[0].pod('lost', { namespace: 'shop', published: false });
    const manifest = (name: string, metadata: object, status: object = {}) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'shop', ...metadata },
      spec: { nodeName: bed.nodes[0].name },
      status,
    });
    const ips = { podIPs: [{ ip: '10.244.1.99' }] };
    bed.lab.manifests.apply(
      manifest('lost', { uid: lost.uid }),
      manifest('nowhere', { uid: 'nobodys' }, ips),
      manifest('nameless', {}, ips),
    );
    await waitFor('the agent to know them', async () => (await ctl('pods')).includes('nameless'));
    await waitFor('the pod to be refused', async () =>
      (await ctl('pods')).includes('status.podIPs has no address'),
    );
    const shown = await ctl('pods');
    expect(shown).toMatch(/^shop +lost +refused .*INVALID_POD: status\.podIPs has no address/m);
    expect(shown).toMatch(/^shop +nowhere +absent +nobodys +no cgroup on this node is named after its uid/m);
    expect(shown).toMatch(/^manifest: .*nameless.*metadata\.uid: is missing/m);
    const status = await node.exec([program, 'status']);
    expect(status).toMatchObject({ code: 1 });
    expect(status.stdout).toMatch(/0 waiting, 1 refused, 1 absent/);
    expect(status.stdout).toMatch(/Pod shop\/nameless +metadata\.uid +is missing or not a pod uid/);
    const control = await bed.lab.nodes.at(-1)!.exec([program, 'status']);
    expect(control.stdout).toMatch(/Pod shop\/nameless +metadata\.uid +is missing/);
    expect(control.stdout).toMatch(/Pod shop\/lost +status\.podIPs +has no address/);
    for (const name of ['lost', 'nowhere', 'nameless']) bed.lab.manifests.delete('Pod', name, 'shop');
    await lost.delete();
  });

  test('doctor: this node can carry the mesh, and its agent answers', async () => {
    const findings = await ctlJson<{ check: string; verdict: string }[]>('doctor');
    expect(findings.filter(({ verdict }) => verdict === 'fails')).toEqual([]);
    expect(findings.find(({ check }) => check === 'agent')).toMatchObject({ verdict: 'ok' });
  });
});
