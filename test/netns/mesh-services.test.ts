import { getServers } from 'node:dns';
import { isIPv4 } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type LabPod, type Manifest, waitFor } from '../lab/index.js';
import {
  accessLines,
  appPort,
  EchoConnection,
  type MeshBed,
  makeMeshBed,
  notInMesh,
  startApp,
  talk,
} from './mesh-harness.js';

const agentFlags = ['--outlier-failures', '3', '--outlier-ejection', '60s', '--outlier-max-percent', '50'];

/** Answers every question for an A record of `*.test` with one address: arguments are where it listens, and that. */
const nameServer = `
  const [at, address] = process.argv.slice(1);
  const socket = require('dgram').createSocket('udp4').bind(53, at, () => console.log('ready'));
  socket.on('message', (question, from) => {
    const end = question.indexOf(0, 12) + 5;
    const name = question.subarray(13, end - 5).toString('latin1').replace(/[^a-z]/g, '.');
    console.log(name);
    const isKnown = name.endsWith('.test') && question.readUInt16BE(end - 4) === 1;
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...address.split('.').map(Number)]);
    const answer = Buffer.concat([question.subarray(0, end), ...(isKnown ? [record] : [])]);
    answer.writeUInt16BE(0x8180, 2);
    answer.writeUInt16BE(isKnown ? 1 : 0, 6);
    answer.fill(0, 8, 12);
    socket.send(answer, from.port, from.address);
  });
`;

const destinationRule = (host: string, trafficPolicy: object): Manifest => ({
  apiVersion: 'networking.istio.io/v1',
  kind: 'DestinationRule',
  metadata: { name: host, namespace: 'shop' },
  spec: { host, trafficPolicy },
});

describe('services through the mesh', () => {
  let bed: MeshBed;
  let vip: string;
  let dead: LabPod;

  beforeAll(async () => {
    bed = await makeMeshBed({ agentFlags });
    // Ready, and nobody listens.
    dead = await bed.nodes[1].pod('dead', {
      namespace: 'shop',
      serviceAccount: 'server',
      labels: { app: 'server' },
    });
    await bed.mesh.waitUntilCaptured([dead]);
    vip = service('server', { app: 'server' });
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  function service(name: string, selector: Readonly<Record<string, string>>): string {
    const ports = [{ port: 80, targetPort: appPort }];
    return bed.lab.service({ name, namespace: 'shop', selector, ports })[0]!;
  }

  const counters = async () => (await bed.mesh.agents[0]!.config()).workers[0]!.tunnel;

  /** Until the agents know of a change: every other way to see it would be the test's own subject. */
  async function answers(host: string): Promise<void> {
    await waitFor(`${host} to answer`, async () => {
      const { ended } = await talk(bed.client, { host, port: 80, line: 'peer', timeoutMs: 3000 });
      return ended === 'fin';
    });
  }

  async function expectAllGood(host: string, count: number): Promise<void> {
    for (let index = 0; index < count; index++) {
      const outcome = await talk(bed.client, { host, port: 80, line: 'count', bytes: 5_000, end: true });
      expect(outcome).toMatchObject({ ended: 'fin', error: '' });
      expect(JSON.parse(outcome.text)).toMatchObject({ bytes: 5_000 });
    }
  }

  test('an endpoint that takes no connection fails none: another is tried, with the bytes sent so far, and the bad one is left out', async () => {
    await answers(vip);
    await expectAllGood(vip, 20);
    const { retriedConnects = 0, ejections } = await counters();
    expect(ejections).toBe(1);
    // Three in a row and it is out; one that another succeeds between is in another row.
    expect(retriedConnects).toBeGreaterThanOrEqual(3);
    await expectAllGood(vip, 5);
    expect((await counters())['retriedConnects']).toBe(retriedConnects);
  }, 60_000);

  test('the same without tunnels, towards pods that are not in the mesh', async () => {
    const labels = { app: 'plain', ...notInMesh };
    const plain = { namespace: 'shop', labels };
    await startApp(await bed.nodes[1].pod('plain-1', plain));
    await bed.nodes[1].pod('plain-2', plain);
    const host = service('plain', { app: 'plain' });
    await answers(host);
    const before = (await counters())['retriedConnects']!;
    await expectAllGood(host, 20);
    expect((await counters())['retriedConnects']).toBeGreaterThan(before);
  }, 60_000);

  test('an endpoint that swallows everything: another is tried while there is time', async () => {
    const labels = { app: 'slow' };
    const silent = await bed.nodes[1].pod('silent', { namespace: 'shop', serviceAccount: 'server', labels });
    const sound = await bed.nodes[1].pod('sound', { namespace: 'shop', serviceAccount: 'server', labels });
    await startApp(sound);
    await silent.output([
      'nft',
      'add table ip x; add chain ip x i { type filter hook input priority 0; policy drop; }',
    ]);
    await bed.mesh.waitUntilCaptured([silent, sound]);
    const host = service('slow', labels);
    bed.lab.manifests.apply(destinationRule('slow', { connectionPool: { tcp: { connectTimeout: '2s' } } }));
    await answers(host);
    const longest = async (): Promise<number> => {
      const outcome = await talk(bed.client, { host, port: 80, line: 'peer', timeoutMs: 15_000 });
      expect(outcome).toMatchObject({ ended: 'fin', error: '' });
      return outcome.totalMs;
    };
    const before = (await counters())['retriedConnects']!;
    const times = [await longest(), await longest(), await longest(), await longest(), await longest()];
    const rested = async () => (await counters())['retriedConnects']! > before;
    // Five in a row at the sound one: one in 32.
    while (!(await rested())) times.push(await longest());
    // Half of the 2 s, and not half of the 10 s that are the default.
    expect(Math.max(...times)).toBeGreaterThan(900);
    expect(Math.max(...times)).toBeLessThan(4_500);
  }, 60_000);

  test('a denial by policy is no reason to try another', async () => {
    const labels = { app: 'guarded' };
    const guarded = { namespace: 'shop', serviceAccount: 'server' };
    const open = await bed.nodes[1].pod('open', { ...guarded, labels });
    const denied = await bed.nodes[1].pod('denied', { ...guarded, labels: { ...labels, deny: 'yes' } });
    await Promise.all([startApp(open), startApp(denied)]);
    await bed.mesh.waitUntilCaptured([open, denied]);
    bed.lab.manifests.apply({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'nobody', namespace: 'shop' },
      spec: { selector: { matchLabels: { deny: 'yes' } }, action: 'DENY', rules: [{}] },
    });
    const host = service('guarded', labels);
    await answers(host);
    const isDenied = async () =>
      (await talk(bed.client, { host, port: 80, line: 'peer', timeoutMs: 5_000 })).ended === 'error';
    await waitFor('the denial', isDenied);
    const before = await counters();
    let denials = 0;
    for (let index = 0; index < 20; index++) if (await isDenied()) denials++;
    const after = await counters();
    expect(denials).toBeGreaterThan(0);
    expect(after['retriedConnects']).toBe(before['retriedConnects']);
    expect(after['ejections']).toBe(before['ejections']);
  }, 60_000);

  test('no endpoint works: the client is reset, and the log tells why', async () => {
    const host = service('none', { app: 'nobody' });
    const lines = async () =>
      await accessLines(bed.mesh.agents[0]!, 'the client', ({ error }) =>
        String(error).includes('service shop/none.shop.svc.cluster.local has no usable endpoint'),
      );
    await waitFor('the service to be known', async () => {
      const { ended } = await talk(bed.client, { host, port: 80, line: 'peer', timeoutMs: 3000 });
      return ended === 'error';
    });
    expect((await lines()).length).toBeGreaterThan(0);
  }, 60_000);

  test('REGISTRY_ONLY refuses what the mesh does not know, and nothing else, as long as it is said', async () => {
    const outside = { host: bed.nodes[1].ip, port: 9955 };
    bed.nodes[1].spawn(['node', '-e', `require('net').createServer((s) => s.end('out')).listen(9955)`]);
    const reaches = async () =>
      (await talk(bed.client, { ...outside, line: 'x', timeoutMs: 3000 })).text === 'out';
    await waitFor('what is outside', reaches);

    const sidecar: Manifest = {
      apiVersion: 'networking.istio.io/v1',
      kind: 'Sidecar',
      metadata: { name: 'default', namespace: 'shop' },
      spec: { outboundTrafficPolicy: { mode: 'REGISTRY_ONLY' } },
    };
    bed.lab.manifests.apply(sidecar);
    await waitFor('the refusal', async () => !(await reaches()));
    const [line] = await accessLines(bed.mesh.agents[0]!, 'the client', ({ error }) =>
      String(error).includes('REGISTRY_ONLY'),
    );
    expect(line!['error']).toContain(outside.host);
    await expectAllGood(vip, 2);
    bed.lab.manifests.delete('Sidecar', 'default', 'shop');
    await waitFor('what is outside', reaches);
  }, 60_000);

  test('a connection that is older than its service allows is ended by FIN while it is quiet', async () => {
    bed.lab.manifests.apply(
      destinationRule('server', { connectionPool: { tcp: { maxConnectionDuration: '2s' } } }),
    );
    await waitFor('the rule to be in force', async () => {
      const echo = await EchoConnection.open(bed.client, { host: vip, port: 80 });
      const ended = await Promise.race([echo.outcome, delay(7_000, undefined, { ref: false })]);
      if (ended === undefined) await echo.close();
      else expect(ended).toMatchObject({ ended: 'fin', error: '' });
      return ended !== undefined;
    });
    bed.lab.manifests.delete('DestinationRule', 'server', 'shop');
    const lines = await accessLines(bed.mesh.agents[0]!, 'the client', ({ error }) =>
      String(error).startsWith('too old'),
    );
    expect(lines.length).toBeGreaterThan(0);
  }, 90_000);

  const entry = (name: string, address: string, endpoint: string): Manifest => ({
    apiVersion: 'networking.istio.io/v1',
    kind: 'ServiceEntry',
    metadata: { name, namespace: 'shop' },
    spec: {
      hosts: [`${name}.example.org`],
      addresses: [address],
      ports: [{ number: 80, name: 'tcp', protocol: 'TCP' }],
      resolution: 'DNS',
      endpoints: [{ address: endpoint, ports: { tcp: appPort } }],
    },
  });

  test('an endpoint that is known by hostname is resolved by the node when a connection comes', async () => {
    const far = await bed.nodes[1].pod('far', { namespace: 'default' });
    await startApp(far);
    const [node] = bed.nodes;
    const resolver = getServers().find((server) => isIPv4(server))!;
    await node.output(['ip', 'address', 'add', `${resolver}/32`, 'dev', 'lo']);
    const server = node.spawn(['node', '-e', nameServer, resolver, far.ip]);
    await server.waitForOutput(/ready/);
    bed.lab.manifests.apply(entry('db', '10.123.0.2', 'db.culvert.test'));
    await answers('10.123.0.2');
    const outcome = await talk(bed.client, { host: '10.123.0.2', port: 80, line: 'peer' });
    expect(JSON.parse(outcome.text).local.address.replace('::ffff:', '')).toBe(far.ip);
    expect(server.stdout).toContain('db.culvert.test');
  }, 60_000);

  test('an endpoint whose hostname has no address is no reason to wait for ever', async () => {
    bed.lab.manifests.apply(entry('far', '10.123.0.1', 'nowhere.invalid'));
    const line = await waitFor('its refusal', async () => {
      await talk(bed.client, { host: '10.123.0.1', port: 80, line: 'x', timeoutMs: 8_000 });
      const lines = bed.mesh.agents[0]!.accessLog();
      return lines.find(({ error }) => String(error).includes('nowhere.invalid'));
    });
    expect(line['dst.service']).toBe('far.example.org');
  }, 60_000);
});
