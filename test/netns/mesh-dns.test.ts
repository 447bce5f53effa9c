import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  Lab,
  type LabNode,
  type LabPod,
  type LabProcess,
  type Mesh,
  startMesh,
  waitFor,
} from '../lab/index.js';
import { ask, seenBy, startDnsServer } from './dns-tools.js';
import { ambient } from './mesh-harness.js';

// Names as captured pods see them: what the mesh knows itself, and what their own resolvers know.

const domain = 'svc.cluster.local';

describe('names in the mesh', () => {
  let lab: Lab;
  let node: LabNode;
  let mesh: Mesh;
  let resolver: LabPod;
  let upstream: LabProcess;
  let client: LabPod;
  let optedOut: LabPod;
  let unanswered: LabPod;
  let unlike: LabPod;
  let servers: LabPod[];
  let vip: string;
  let vip6: string;
  let four: string;

  beforeAll(async () => {
    lab = await Lab.create();
    lab.namespace('shop', ambient);
    lab.namespace('other');
    const nodes = [await lab.node('a'), await lab.node('b')] as const;
    node = nodes[0];
    resolver = await nodes[1].pod('resolver', { namespace: 'other' });
    upstream = await startDnsServer(resolver);
    const of = (address: string) =>
      `search shop.${domain} ${domain} cluster.local\nnameserver ${address}\noptions ndots:5\n`;
    client = await node.pod('client', { namespace: 'shop', resolvConf: of(resolver.ip) });
    optedOut = await node.pod('out', {
      namespace: 'shop',
      resolvConf: of(resolver.ip),
      annotations: { 'ambient.istio.io/dns-capture': 'false' },
    });
    unanswered = await node.pod('unanswered', { namespace: 'shop', resolvConf: of('192.0.2.250') });
    unlike = await node.pod('unlike', { namespace: 'shop', resolvConf: of(resolver.ip) });
    servers = [
      await nodes[1].pod('server-1', { namespace: 'shop', labels: { app: 'server' } }),
      await nodes[1].pod('server-2', { namespace: 'shop', labels: { app: 'server' } }),
    ];
    const selector = { app: 'server' };
    [vip, vip6] = lab.service({
      name: 'web',
      namespace: 'shop',
      selector,
      ports: [{ name: 'http', port: 80 }],
    }) as [string, string];
    lab.service({
      name: 'peers',
      namespace: 'shop',
      selector,
      ports: [{ name: 'peer', port: 7000 }],
      clusterIPs: [],
    });
    four = lab.service({
      name: 'four',
      namespace: 'other',
      selector: { app: 'none' },
      ports: [{ port: 80 }],
    })[0]!;
    const entry = (name: string, host: string, addresses: string[]) => ({
      apiVersion: 'networking.istio.io/v1',
      kind: 'ServiceEntry',
      metadata: { name, namespace: 'shop' },
      spec: {
        hosts: [host],
        addresses,
        location: 'MESH_EXTERNAL',
        resolution: 'STATIC',
        ports: [{ number: 443, name: 'tls', protocol: 'TLS' }],
        endpoints: [{ address: '192.0.2.99' }],
      },
    });
    lab.manifests.apply(
      entry('fixed', 'api.partner.test', ['240.1.0.1']),
      entry('auto', 'auto.partner.test', []),
      entry('wild', '*.wild.test', ['240.1.0.2']),
      entry('closer', '*.closer.wild.test', ['240.1.0.3']),
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'outside', namespace: 'shop' },
        spec: { type: 'ExternalName', externalName: 'db.example.com' },
      },
    );
    mesh = await startMesh(lab, { nodes });
    await mesh.waitUntilCaptured([client, optedOut, unanswered, unlike]);
    await waitFor(
      'the mesh to know the services',
      async () => (await ask(client, { name: `four.other.${domain}` })).aa,
    );
  }, 120_000);
  afterAll(() => lab?.close());

  test.each(['unconnected', 'connected', 'tcp'] as const)('%s: the address of a service', async (how) => {
    const answer = await ask(client, { name: `web.shop.${domain}`, how });
    expect(answer).toMatchObject({ rcode: 0, tc: false, aa: true, from: ['192.0.2.53', 53] });
    expect(answer.answers).toEqual([{ owner: `web.shop.${domain}`, type: 'A', ttl: 30, data: vip }]);
    const six = await ask(client, { name: `web.shop.${domain}`, type: 'AAAA', how, server: '2001:db8::53' });
    expect(six.answers.map(({ data }) => data)).toEqual([vip6]);
    expect(six.from).toEqual(['2001:db8::53', 53]);
  });

  const addressesOf = (answer: { answers: readonly { type: string; data: string }[] }) =>
    answer.answers
      .filter(({ type }) => type === 'A' || type === 'AAAA')
      .map(({ data }) => data)
      .sort();

  test('a headless service: all its endpoints; each by its address; SRV with their names', async () => {
    const peers = `peers.shop.${domain}`;
    expect(addressesOf(await ask(client, { name: peers }))).toEqual(servers.map(({ ip }) => ip).sort());
    expect(addressesOf(await ask(client, { name: peers, type: 'AAAA' }))).toEqual(
      servers.map(({ ip6 }) => ip6).sort(),
    );
    const dashed = `${servers[0]!.ip.replaceAll('.', '-')}.${peers}`;
    expect(addressesOf(await ask(client, { name: dashed }))).toEqual([servers[0]!.ip]);
    const { answers } = await ask(client, { name: `_peer._tcp.${peers}`, type: 'SRV', how: 'tcp' });
    const targets = servers.map(({ ip }) => `0 100 7000 ${ip.replaceAll('.', '-')}.${peers}`);
    expect(answers.map(({ data }) => data).sort()).toEqual(targets.sort());
  });

  test('hosts of ServiceEntries, and ExternalName services', async () => {
    const named = await ask(client, { name: 'api.partner.test' });
    expect(named).toMatchObject({ aa: true, rcode: 0 });
    expect(addressesOf(named)).toEqual(['240.1.0.1']);
    const { answers } = await ask(client, { name: `outside.shop.${domain}` });
    expect(answers.map(({ owner, type, data }) => [owner, type, data])).toEqual([
      [`outside.shop.${domain}`, 'CNAME', 'db.example.com'],
      ['db.example.com', 'A', '198.51.100.77'],
    ]);
    for (const how of ['unconnected', 'connected', 'tcp'] as const) {
      expect(addressesOf(await ask(client, { name: 'any.Thing.wild.test', how }))).toEqual(['240.1.0.2']);
      expect(addressesOf(await ask(client, { name: 'one.closer.wild.test', how }))).toEqual(['240.1.0.3']);
    }
    // Not the domain itself: that is asked elsewhere.
    expect(addressesOf(await ask(client, { name: 'wild.test' }))).toEqual(['198.51.100.77']);
    // An address of its own choosing, where the entry has none.
    expect(addressesOf(await ask(client, { name: 'auto.partner.test' }))[0]).toMatch(/^240\.240\./);
  });

  test('short names, and names with a search suffix too many', async () => {
    for (const name of ['web', 'web.shop', 'web.shop.svc'])
      expect(addressesOf(await ask(client, { name }))).toEqual([vip]);
    const { answers } = await ask(client, { name: `four.other.${domain}.shop.${domain}` });
    expect(answers.map(({ type, data }) => [type, data])).toEqual([
      ['CNAME', `four.other.${domain}`],
      ['A', four],
    ]);
  });

  test('a name of ours without the type asked for: an empty answer, nobody else is asked', async () => {
    const name = `web.shop.${domain}`;
    for (const type of ['TXT', 'SOA'])
      expect(await ask(client, { name, type })).toMatchObject({ rcode: 0, answers: [] });
    expect(await ask(client, { name: `10.96.0.0`, type: 'PTR' })).toBeDefined();
    expect(seenBy(upstream).filter((seen) => seen.name === name)).toEqual([]);
  });

  test('an address of the mesh has the name of its service', async () => {
    const name = `${vip.split('.').reverse().join('.')}.in-addr.arpa`;
    const { answers } = await ask(client, { name, type: 'PTR' });
    expect(answers.map(({ data }) => data)).toEqual([`web.shop.${domain}`]);
  });

  test.each(['unconnected', 'connected', 'tcp'] as const)(
    '%s: other names come from the resolver in resolv.conf, whoever is asked',
    async (how) => {
      const answer = await ask(client, { name: `${how}.example.com`, how, edns: 1232 });
      expect(addressesOf(answer)).toEqual(['198.51.100.77']);
      expect(answer.from).toEqual(['192.0.2.53', 53]);
      const seen = seenBy(upstream).filter(({ name }) => name === `${how}.example.com`);
      expect(seen).toMatchObject([{ over: how === 'tcp' ? 'tcp' : 'udp', edns: true }]);
      expect(seen[0]!.id).not.toBe(7);
    },
  );

  test('answers are kept for their time, no longer and not for others', async () => {
    const name = 'kept.example.com';
    const asked = () => seenBy(upstream).filter((seen) => seen.name === name).length;
    await ask(client, { name });
    await ask(client, { name });
    expect(asked()).toBe(1);
    expect((await ask(client, { name, how: 'tcp' })).answers[0]!.ttl).toBeLessThanOrEqual(60);
    await ask(unlike, { name });
    expect(asked()).toBe(2);
    expect(await ask(client, { name: 'nx.example.com' })).toMatchObject({ rcode: 3, answers: [] });
    expect(await ask(client, { name: 'nx.example.com' })).toMatchObject({ rcode: 3, answers: [] });
    expect(seenBy(upstream).filter((seen) => seen.name === 'nx.example.com')).toHaveLength(1);
  });

  test('what UDP cannot carry comes over TCP, for the agent and for its client', async () => {
    const short = await ask(client, { name: 'big.example.com' });
    expect(short).toMatchObject({ tc: true, rcode: 0 });
    expect(short.bytes).toBeLessThanOrEqual(512);
    const whole = await ask(client, { name: 'big.example.com', how: 'tcp' });
    expect(whole.answers).toHaveLength(100);
  });

  test('forged responses are passed over', async () => {
    expect(addressesOf(await ask(client, { name: 'spoof.example.com' }))).toEqual(['198.51.100.77']);
  });

  test('a resolver that fails or is silent: SERVFAIL in bounded time, over UDP and TCP', async () => {
    expect(await ask(client, { name: 'fail.example.com' })).toMatchObject({ rcode: 2 });
    for (const how of ['connected', 'tcp'] as const) {
      const answer = await ask(client, { name: 'silent.example.com', how });
      expect(answer).toMatchObject({ rcode: 2 });
      expect(answer.ms).toBeLessThan(7_000);
    }
    expect(await ask(unanswered, { name: 'any.example.com' })).toMatchObject({ rcode: 2 });
    expect(addressesOf(await ask(unanswered, { name: 'web' }))).toEqual([vip]);
  }, 60_000);

  test('getaddrinfo of a real program', async () => {
    const program = `import socket, json
print(json.dumps(sorted({a[4][0] for n in ('web', 'four.other', 'outside.example.com') for a in socket.getaddrinfo(n, 80)})))`;
    const found = JSON.parse(await client.output(['python3', '-c', program])) as string[];
    expect(found).toEqual(expect.arrayContaining([vip, vip6, four, '198.51.100.77']));
    expect(await client.output(['getent', 'ahostsv4', 'web'])).toContain(vip);
  });

  test('a pod opted out asks its resolver itself', async () => {
    const name = `web.shop.${domain}`;
    const answer = await ask(optedOut, { name, server: resolver.ip });
    expect(addressesOf(answer)).toEqual(['198.51.100.77']);
    expect(seenBy(upstream).filter((seen) => seen.name === name)).toMatchObject([{ id: 7 }]);
  });

  test('a resolv.conf that changes is followed', async () => {
    writeFileSync(unlike.resolvConf, 'nameserver 127.0.0.1\n');
    await waitFor('its servers to be gone', async () => {
      return (await ask(unlike, { name: `${Math.random()}.example.com` })).rcode === 2;
    });
    writeFileSync(unlike.resolvConf, `nameserver ${resolver.ip6}\nnameserver ${resolver.ip}\n`);
    await waitFor('its new servers', async () => {
      return (await ask(unlike, { name: `${Math.random()}.example.com` })).rcode === 0;
    });
  }, 60_000);

  test('a resolver that there is no way to costs its pod a try, and nobody else anything', async () => {
    await unlike.output(['ip', '-6', 'route', 'del', 'default']);
    writeFileSync(unlike.resolvConf, 'nameserver 2001:db8:ffff::1\n');
    await waitFor('it to be tried', async () => {
      return (await ask(unlike, { name: `${Math.random()}.example.com` })).rcode === 2;
    });
    writeFileSync(unlike.resolvConf, `nameserver 2001:db8:ffff::1\nnameserver ${resolver.ip}\n`);
    await waitFor('the next one to be asked', async () => {
      return (await ask(unlike, { name: `${Math.random()}.example.com` })).rcode === 0;
    });
    expect(mesh.agents[0]!.process.running).toBe(true);
  }, 60_000);

  test('one pod that asks without end does not keep others from their answers', async () => {
    const flood = `import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.time() + 6
i = 0
while time.time() < end:
    i += 1
    s.sendto(b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\6silent\\4n%03d\\7example\\3com\\0\\0\\1\\0\\1' % (i % 1000), ('192.0.2.53', 53))
    if i % 50 == 0: time.sleep(0.001)
print('done')`;
    const process = unlike.spawn(['python3', '-c', flood]);
    for (let i = 0; i < 10; i++) {
      expect(addressesOf(await ask(client, { name: 'web', how: 'connected' }))).toEqual([vip]);
      expect(addressesOf(await ask(client, { name: `calm${i}.example.com` }))).toEqual(['198.51.100.77']);
    }
    await process.ended;
  }, 60_000);

  test('questions and upstream requests are counted, without names', async () => {
    const text = await waitFor('metrics', async () => {
      const metrics = await mesh.agents[0]!.metrics();
      return /istio_dns_upstream_failures_total\{[^}]*\} [1-9]/.test(metrics) ? metrics : null;
    });
    expect(text).toMatch(
      /istio_dns_requests_total\{request_query_type="A",request_protocol="udp",source_canonical_service="client",[^}]*\} \d+/,
    );
    expect(text).toMatch(/istio_dns_upstream_request_duration_seconds_bucket\{[^}]*le="\+Inf"\} [1-9]/);
    expect(text).not.toContain('example.com');
  });

  test('from outside nobody is answered', async () => {
    const answer = await resolver.output([
      'python3',
      '-c',
      `import socket
def attempt(kind):
    s = socket.socket(socket.AF_INET, kind); s.settimeout(1)
    try:
        s.connect(('${client.ip}', 15053)); s.send(b'\\0\\x1d' * 20); return s.recv(9)
    except OSError as e: return type(e).__name__
print(attempt(socket.SOCK_DGRAM), attempt(socket.SOCK_STREAM))`,
    ]);
    expect(answer).toMatch(
      /^(TimeoutError|ConnectionRefusedError) (ConnectionResetError|ConnectionRefusedError|b'')\n$/,
    );
  });

  test('the agent is dead: questions are refused and none leaves; it comes back and answers', async () => {
    const wire = await node.capture({ filter: 'port 53' });
    const agent = mesh.agents[0]!;
    await agent.process.stop('SIGKILL');
    expect(await ask(client, { name: 'leak.example.com', how: 'connected', timeout: 2 })).toMatchObject({
      error: 'Connection refused',
    });
    expect((await ask(client, { name: 'leak.example.com', timeout: 1 })).error).toBeDefined();
    expect((await ask(client, { name: 'leak.example.com', how: 'tcp', timeout: 2 })).error).toBeDefined();
    const born = await node.pod('born', { namespace: 'shop' });
    for (const how of ['unconnected', 'connected', 'tcp'] as const)
      expect((await ask(born, { name: 'leak.example.com', how, timeout: 1 })).error).toBe(
        'Operation not permitted',
      );
    await wire.stop();
    expect(wire.contains('leak')).toBe(false);
    expect(seenBy(upstream).filter(({ name }) => name.startsWith('leak'))).toEqual([]);
    await agent.restart();
    await mesh.waitUntilCaptured([client, born]);
    await waitFor('the store', async () => (await ask(client, { name: 'web' })).aa);
  }, 60_000);
});
