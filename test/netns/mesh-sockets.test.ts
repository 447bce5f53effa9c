import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { LabPod, PacketCapture } from '../lab/index.js';
import { appPort, inClear, type MeshBed, makeMeshBed, sockets, startApp, talk } from './mesh-harness.js';

// Sockets that applications make in unusual ways: they see of themselves, of their peer and of each other what they see without a mesh.

interface Seen {
  readonly local: string;
  readonly remote: string;
  readonly answer: string;
  readonly error: string;
}

const plainV4Port = 9001;
const mptcpPort = 9002;

describe('sockets of every kind through the mesh', () => {
  let bed: MeshBed;
  /** On the client's node, not in the mesh. */
  let plain: LabPod;
  let wire: PacketCapture;

  beforeAll(async () => {
    bed = await makeMeshBed();
    plain = await bed.nodes[0].pod('plain', { namespace: 'default' });
    await bed.mesh.waitUntilPlain([plain]);
    await startApp(bed.server, plainV4Port, '0.0.0.0');
    wire = await bed.nodes[0].capture({ filter: 'not port 15008' });
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  async function connect(
    pod: LabPod,
    kind: string,
    host: string,
    port = appPort,
    ...settings: string[]
  ): Promise<Seen> {
    return JSON.parse(await pod.output([sockets, kind, host, String(port), ...settings])) as Seen;
  }

  /** What the server's application was told of its caller. */
  function callerIn({ answer }: Seen): { address: string; port: number } {
    const { peer } = JSON.parse(answer.replaceAll("'", '"')) as { peer: { address: string; port: number } };
    return { ...peer, address: peer.address.replace('::ffff:', '') };
  }

  /** The same with the pod's own address and its ephemeral port left out. */
  function anonymous(pod: LabPod, seen: Seen): Seen {
    const local = seen.local.replace(/ \d+$/, ' PORT').replace(pod.ip, 'POD').replace(pod.ip6, 'POD');
    return { ...seen, local, answer: '' };
  }

  const families = ['IPv4', 'IPv6'] as const;
  const serverOf = (family: (typeof families)[number]) =>
    family === 'IPv4' ? bed.server.ip : bed.server.ip6;
  const ownOf = (pod: LabPod, family: (typeof families)[number]) => (family === 'IPv4' ? pod.ip : pod.ip6);

  const kinds = ['tcp', 'mptcp', 'fastopen', 'fastopen-connect', 'mapped'];
  const cases = kinds.flatMap((kind) =>
    families
      .filter((family) => kind !== 'mapped' || family === 'IPv4')
      .map((family) => [kind, family] as const),
  );

  test.each(cases)(
    '%s over %s: getsockname, getpeername and the caller shown are those of no mesh',
    async (kind, family) => {
      const host = serverOf(family);
      const without = await connect(plain, kind, host);
      const within = await connect(bed.client, kind, host);
      expect(within.error).toBe('');
      expect(anonymous(bed.client, within)).toEqual(anonymous(plain, without));
      expect(within.remote.replace('::ffff:', '')).toBe(`${host} ${appPort}`);
      expect(callerIn(within)).toEqual({
        address: ownOf(bed.client, family),
        port: Number(within.local.split(' ')[1]),
      });
    },
  );

  test('fast open with data in the SYN, where client and listeners have it on: the data comes once', async () => {
    // Client, server, client without a cookie, server without one, all listeners.
    await bed.client.output(['sysctl', '-qw', 'net.ipv4.tcp_fastopen=1543']);
    for (const kind of ['fastopen', 'fastopen-connect']) {
      for (const family of families) {
        const seen = await connect(bed.client, kind, serverOf(family));
        expect(seen).toMatchObject({ error: '', remote: `${serverOf(family)} ${appPort}` });
        expect(callerIn(seen).address).toBe(ownOf(bed.client, family));
      }
    }
    await bed.client.output(['sysctl', '-qw', 'net.ipv4.tcp_fastopen=1']);
  });

  test('a bound source address is kept, and two connections with one source port go where each wants', async () => {
    const second = '10.244.1.200';
    await bed.client.output(['ip', 'addr', 'add', `${second}/32`, 'dev', 'eth0']);
    await bed.nodes[0].output(['ip', 'route', 'add', `${second}/32`, 'dev', bed.client.hostDevice]);
    const seen = await connect(bed.client, 'tcp', bed.server.ip, appPort, `bind=${second}`);
    expect(seen).toMatchObject({ error: '', remote: `${bed.server.ip} ${appPort}` });
    expect(seen.local).toMatch(new RegExp(`^${second} `));
    expect(callerIn(seen).address).toBe(second);

    const bound = (address: string) => [`bind=${address}`, 'port=40000'];
    const [one, other] = await Promise.all([
      connect(bed.client, 'tcp', bed.server.ip, appPort, ...bound(bed.client.ip)),
      connect(bed.client, 'tcp', bed.server.ip, plainV4Port, ...bound(second)),
    ]);
    expect([one.local, one.remote]).toEqual([`${bed.client.ip} 40000`, `${bed.server.ip} ${appPort}`]);
    expect([other.local, other.remote]).toEqual([`${second} 40000`, `${bed.server.ip} ${plainV4Port}`]);
    expect(callerIn(one)).toEqual({ address: bed.client.ip, port: 40000 });
    expect(callerIn(other)).toEqual({ address: second, port: 40000 });
    expect(JSON.parse(other.answer.replaceAll("'", '"')).local.port).toBe(plainV4Port);
  });

  test('SO_BINDTODEVICE', async () => {
    for (const family of families) {
      const seen = await connect(bed.client, 'tcp', serverOf(family), appPort, 'device=eth0');
      expect(seen).toMatchObject({ error: '', remote: `${serverOf(family)} ${appPort}` });
      expect(seen.local.split(' ')[0]).toBe(ownOf(bed.client, family));
      expect(callerIn(seen).address).toBe(ownOf(bed.client, family));
    }
  });

  test('an application that listens on IPv4 only sees its callers', async () => {
    const seen = await connect(bed.client, 'tcp', bed.server.ip, plainV4Port);
    expect(callerIn(seen).address).toBe(bed.client.ip);
    expect(await connect(bed.client, 'tcp', bed.server.ip6, plainV4Port)).toMatchObject({
      error: 'ECONNRESET',
    });
  });

  test('an application that listens by MPTCP, as Go programs do, sees its callers by accept and getpeername', async () => {
    const app = bed.server.spawn([sockets, 'serve', 'mptcp', String(mptcpPort)]);
    await app.waitForOutput(/listening/);
    const seen = await connect(bed.client, 'tcp', bed.server.ip, mptcpPort);
    expect(seen.answer).toBe('y');
    const caller = `::ffff:${seen.local}`;
    expect(JSON.parse((await app.waitForOutput(/\{.*\}/))[0])).toEqual({
      accepted: caller,
      peer: caller,
      local: `::ffff:${bed.server.ip} ${mptcpPort}`,
    });
    await app.stop();
  });

  test('a pod reaches itself by its own addresses and by loopback', async () => {
    for (const host of [bed.server.ip, bed.server.ip6, '127.0.0.1', '::1']) {
      const seen = await connect(bed.server, 'tcp', host);
      expect(seen).toMatchObject({ error: '', remote: `${host} ${appPort}` });
      expect(callerIn(seen).address).toBe(host);
    }
  });

  test('two pods of one service account on one node never share a tunnel connection', async () => {
    const twins = [];
    for (const name of ['twin-one', 'twin-two'])
      twins.push(await bed.nodes[0].pod(name, { namespace: 'shop', serviceAccount: 'twin' }));
    await bed.mesh.waitUntilCaptured(twins);
    const dials = await bed.nodes[0].capture({
      filter: 'tcp dst port 15008 and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn',
    });
    for (let round = 0; round < 5; round++)
      for (const twin of twins)
        expect(await talk(twin, { host: bed.server.ip, port: appPort, line: 'peer' })).toMatchObject({
          ended: 'fin',
        });
    await dials.stop();
    for (const twin of twins) expect(await dials.count(`src host ${twin.ip}`)).toBe(1);
    expect(await dials.count()).toBe(2);
  });

  test('none of it left the client in clear text', async () => {
    await wire.stop();
    expect(await inClear(wire, bed.client)).toEqual([]);
    expect(await inClear(wire, plain)).not.toEqual([]);
  });
});
