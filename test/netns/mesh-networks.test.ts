import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type LabPod, waitFor } from '../lab/index.js';
import {
  accessLines,
  appPort,
  EchoConnection,
  type MeshBed,
  makeMeshBed,
  spiffe,
  startApp,
  talk,
} from './mesh-harness.js';

// Node b is on a network of its own: node a's pods enter it by its east-west gateway only (hbone-and-wds.md 1.7, 1.8).

describe('another network', () => {
  let bed: MeshBed;
  let gateway: LabPod;
  let vip: string;

  beforeAll(async () => {
    bed = await makeMeshBed({ networks: { b: 'east' } });
    gateway = await gatewayPod('gateway');
    await bed.mesh.waitUntilCaptured([gateway]);
    gatewaysAt([gateway.ip]);
    const ports = [{ port: 80, targetPort: appPort }];
    [vip] = bed.lab.service({ name: 'server', namespace: 'shop', selector: { app: 'server' }, ports }) as [
      string,
    ];
    await waitFor('the service to answer', async () => (await peer()).ended === 'fin', { timeoutMs: 30_000 });
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  const gatewayPod = (name: string) =>
    bed.nodes[1].pod(name, {
      namespace: 'shop',
      serviceAccount: 'gateway',
      labels: { app: 'gateway', 'gateway.istio.io/managed': 'istio.io-eastwest-controller' },
    });

  const gatewaysAt = (externalIPs: string[]) =>
    bed.lab.service({
      name: 'east-gateway',
      namespace: 'shop',
      labels: { 'topology.istio.io/network': 'east' },
      selector: { app: 'gateway' },
      ports: [{ port: 15008 }],
      externalIPs,
    });

  const peer = () => talk(bed.client, { host: vip, port: 80, line: 'peer', timeoutMs: 5_000 });

  test('a service there is reached through its gateway, which sees TLS only; the server has the client by its certificate', async () => {
    const wire = await bed.nodes[0].capture();
    const outcome = await talk(bed.client, {
      host: vip,
      port: 80,
      line: 'count',
      bytes: 3_000_000,
      end: true,
    });
    expect(outcome).toMatchObject({ ended: 'fin', error: '' });
    expect(JSON.parse(outcome.text)).toMatchObject({ bytes: 3_000_000 });
    await wire.stop();
    expect(
      await wire.count(`tcp port 15008 and host ${gateway.ip} and host ${bed.client.ip}`),
    ).toBeGreaterThan(100);
    expect(await wire.count(`host ${bed.server.ip} and host ${bed.client.ip}`)).toBe(0);
    const server = bed.mesh.agents[1]!;
    const lines = await accessLines(
      server,
      'the server',
      (line) => line['dst.workload'] === 'server' && Number(line['bytes_recv']) > 3_000_000,
    );
    expect(lines[0]).toMatchObject({
      'src.identity': spiffe('client'),
      'src.workload': 'client',
      direction: 'inbound',
    });
    expect(String(lines[0]!['src.addr'])).toMatch(new RegExp(`^${gateway.ip.replaceAll('.', '\\.')}:`));
    const own = await accessLines(
      bed.mesh.agents[0]!,
      'the client',
      (line) => Number(line['bytes_sent']) > 3_000_000,
    );
    expect(own[0]).toMatchObject({
      'dst.addr': `${gateway.ip}:15008`,
      'dst.service': 'server.shop.svc.cluster.local',
    });
  }, 60_000);

  test('half-close and resets go through both tunnels', async () => {
    const echo = await EchoConnection.open(bed.client, { host: vip, port: 80 });
    await echo.say('through-two-tunnels');
    await echo.close();
    const reset = await talk(bed.client, { host: vip, port: 80, line: 'reset', timeoutMs: 10_000 });
    expect(reset.ended).toBe('error');
  }, 60_000);

  test('its pods have no address here: nothing goes there directly, and a service that is not there is refused', async () => {
    const direct = await talk(bed.client, {
      host: bed.server.ip,
      port: appPort,
      line: 'peer',
      timeoutMs: 5_000,
    });
    // An address of no network that we know: as to any other stranger, in clear, which a STRICT server refuses.
    expect(direct.remote).toContain(bed.server.ip);
    const unknown = bed.lab.service({
      name: 'nobody',
      namespace: 'shop',
      selector: { app: 'nobody' },
      ports: [{ port: 80 }],
    })[0]!;
    await waitFor('the service to be known', async () => {
      const { ended } = await talk(bed.client, { host: unknown, port: 80, line: 'peer', timeoutMs: 5_000 });
      return ended === 'error';
    });
  }, 60_000);

  test('policies of the server see the client beyond the gateway; those of the gateway see it first', async () => {
    const deny = (name: string, app: string) =>
      bed.lab.manifests.apply({
        apiVersion: 'security.istio.io/v1',
        kind: 'AuthorizationPolicy',
        metadata: { name, namespace: 'shop' },
        spec: {
          selector: { matchLabels: { app } },
          action: 'DENY',
          rules: [{ from: [{ source: { principals: ['cluster.local/ns/shop/sa/client'] } }] }],
        },
      });
    for (const app of ['server', 'gateway']) {
      deny(`no-client-${app}`, app);
      await waitFor(`${app} to refuse the client`, async () => (await peer()).ended !== 'fin');
      bed.lab.manifests.delete('AuthorizationPolicy', `no-client-${app}`, 'shop');
      await waitFor('it to be let in again', async () => (await peer()).ended === 'fin');
    }
  }, 60_000);

  test('with one of two gateways gone connections go on through the other', async () => {
    const second = await gatewayPod('gateway-2');
    const servers = await Promise.all(
      ['server-2', 'server-3', 'server-4'].map((name) =>
        bed.nodes[1].pod(name, {
          namespace: 'shop',
          serviceAccount: 'server',
          labels: { app: 'server' },
        }),
      ),
    );
    for (const server of servers) await startApp(server);
    await bed.mesh.waitUntilCaptured([second, ...servers]);
    gatewaysAt([gateway.ip, second.ip]);
    const [own] = bed.mesh.agents;
    const tunnel = async () => (await own!.config()).workers[0]!.tunnel;
    await waitFor('both gateways to be used', async () => {
      expect((await peer()).ended).toBe('fin');
      return own!.accessLog().some((line) => line['dst.addr'] === `${second.ip}:15008`);
    });
    const { retriedConnects = 0 } = await tunnel();
    await second.delete();
    const patient = { host: vip, port: 80, line: 'count', bytes: 5_000, end: true, timeoutMs: 20_000 };
    const good = async () => (await talk(bed.client, patient)).ended === 'fin';
    // What is sent into a connection whose peer has gone without a word may have arrived: those are reset, until that is found out.
    await waitFor(
      'five good connections in a row, and one that was tried again',
      async () => {
        for (let index = 0; index < 5; index++) if (!(await good())) return false;
        return (await tunnel())['retriedConnects']! > retriedConnects; // by chance all five chose the other one
      },
      { timeoutMs: 60_000 },
    );
    expect((await tunnel())['retriedConnects']).toBeGreaterThan(retriedConnects);
  }, 120_000);

  test('without its gateway the network is out of reach, quickly, and never directly', async () => {
    await gateway.delete();
    const wire = await bed.nodes[0].capture();
    await waitFor('connections to fail', async () => (await peer()).ended !== 'fin', { timeoutMs: 20_000 });
    await wire.stop();
    expect(await wire.count(`host ${bed.server.ip}`)).toBe(0);
  }, 60_000);
});

describe('an application that is told of its callers by PROXY', () => {
  let bed: MeshBed;
  beforeAll(async () => {
    bed = await makeMeshBed();
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  test('a header comes first: who it is by address and by identity, and what was asked for', async () => {
    const pod = await bed.nodes[1].pod('told', {
      namespace: 'shop',
      serviceAccount: 'told',
      annotations: { 'ambient.istio.io/waypoint-inbound-binding': 'PROXY/9100' },
    });
    const program = `require('net').createServer({ allowHalfOpen: true }, (socket) => {
      const chunks = [];
      socket.on('data', (chunk) => chunks.push(chunk)).on('end', () => socket.end(Buffer.concat(chunks).toString('hex')));
    }).listen(9100, '127.0.0.1', () => console.log('listening'));`;
    const app = pod.spawn(['node', '-e', program]);
    await app.waitForOutput(/listening/);
    await bed.mesh.waitUntilCaptured([pod]);
    const outcome = await waitFor('the application to answer', async () => {
      const talked = await talk(bed.client, {
        host: pod.ip,
        port: 80,
        line: 'hello',
        end: true,
        timeoutMs: 5_000,
      });
      return talked.ended === 'fin' && talked.received > 0 ? talked : null;
    });
    const header = Buffer.from(outcome.text, 'hex');
    expect(header.subarray(0, 12).toString('latin1')).toBe('\r\n\r\n\0\r\nQUIT\n');
    expect([header[12], header[13]]).toEqual([0x21, 0x11]);
    expect([...header.subarray(16, 24)].join('.')).toBe(`${bed.client.ip}.${pod.ip}`);
    expect(header.readUInt16BE(24)).toBe(Number(outcome.local.split(' ')[1]));
    expect(header.readUInt16BE(26)).toBe(80);
    const length = header.readUInt16BE(14);
    expect(header.subarray(28, 16 + length).toString('latin1')).toBe(
      `\xd0\0${String.fromCharCode(spiffe('client').length)}${spiffe('client')}`,
    );
    expect(header.subarray(16 + length).toString()).toBe('hello\n');
  }, 60_000);
});
