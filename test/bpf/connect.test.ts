import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  encodeCapturedPod,
  encodeRangeKey,
  encodeRangeValue,
  encodeU32,
  encodeU64,
} from '../../native/bpf/index.js';
import { Lab, type LabNode, type LabPod } from '../lab/index.js';
import { spawnIn } from '../lab/process.js';
import { Datapath, placeOf } from './support/datapath.js';
import { python } from './support/python.js';

const elsewhere = { v4: '192.0.2.7', v6: '2001:db8:7::7' };

/** 14336 to 15359 */
const redirectPort = /:1(4[3-9]|5[0-3])\d\d$/;

describe('cgroup/connect4|6', () => {
  let lab: Lab;
  let node: LabNode;
  let datapath: Datapath;
  let pod: LabPod;
  let v4Only: LabPod;
  let plain: LabPod;
  let agent: LabPod;
  let stranger: LabPod;
  let hostPod: LabPod;

  beforeAll(async () => {
    lab = await Lab.create();
    node = await lab.node('a');
    // pods of the guaranteed class lie one level below the parent, all others two
    [pod, plain, agent, stranger] = await Promise.all([
      node.pod('pod'),
      node.pod('plain', { qos: 'guaranteed' }),
      node.pod('agent', { qos: 'burstable' }),
      node.pod('stranger'),
    ]);
    hostPod = await node.pod('host', { hostNetwork: true, qos: 'guaranteed' });
    v4Only = await node.pod('four', { families: 'ipv4', qos: 'guaranteed' });
    datapath = new Datapath(node);
    // client and server, without cookies, for every listener made from now on: the agent's too
    await pod.output(['sysctl', '-qw', 'net.ipv4.tcp_fastopen=0x607']);
    datapath.captureOutbound(pod);
    datapath.captureOutbound(v4Only);
    datapath.list(plain, 'plain');
    datapath.list(agent, 'agent');
    datapath.attach();
    await plain.spawn(python(server)).waitForOutput(/ready/);
  }, 60_000);

  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  const run = async (where: LabPod, program: string) => JSON.parse(await where.output(python(program)));

  describe('redirects to the pod address and keeps getsockname and getpeername as they were', () => {
    test('IPv4', async () => {
      const told = await run(pod, `s = sock(); s.connect(('${elsewhere.v4}', 80)); out(told(s))`);
      expect(told).toMatchObject({ listener: 'outbound', destination: `${elsewhere.v4}:80` });
      expect(told).toMatchObject({
        peername: `${elsewhere.v4}:80`,
        local: expect.stringMatching(redirectPort),
        remote: told.sockname,
      });
      expect(told.sockname).toMatch(new RegExp(`^${pod.ip}:`));
    });

    test('IPv6', async () => {
      const told = await run(pod, `s = sock(V6); s.connect(('${elsewhere.v6}', 443)); out(told(s))`);
      expect(told).toMatchObject({ destination: `[${elsewhere.v6}]:443`, peername: `[${elsewhere.v6}]:443` });
      expect(told.local).toMatch(redirectPort);
      expect(told.local).toContain(`[${pod.ip6}]:`);
      expect(told.sockname).toContain(`[${pod.ip6}]:`);
    });

    test('IPv4 through an IPv6 socket', async () => {
      const told = await run(pod, `s = sock(V6); s.connect(('::ffff:${elsewhere.v4}', 80)); out(told(s))`);
      expect(told).toMatchObject({
        destination: `${elsewhere.v4}:80`,
        peername: `[::ffff:${elsewhere.v4}]:80`,
      });
      expect(told.local).toMatch(redirectPort);
      expect(told.local).toContain(`${pod.ip}:`);
      expect(told.sockname).toContain(`[::ffff:${pod.ip}]:`);
    });

    test.each([
      ['MSG_FASTOPEN', `s.sendto(b'x', 0x20000000, ('${elsewhere.v4}', 80))`],
      ['TCP_FASTOPEN_CONNECT', `s.setsockopt(6, 30, 1); s.connect(('${elsewhere.v4}', 80)); s.send(b'x')`],
    ])('TCP fast open by %s, with the data in the SYN', async (_, connect) => {
      const program = `
def fast():
    names, values = [line.split() for line in open('/proc/net/netstat') if line.startswith('TcpExt:')]
    return int(values[names.index('TCPFastOpenActive')])
before, all = fast(), []
for i in range(2):
    s = sock(); s.settimeout(None); ${connect}; all.append(told(s)); s.close()
out([all, fast() - before])`;
      const [all, fast] = await run(pod, program);
      expect(fast).toBe(2);
      for (const told of all) {
        expect(told).toMatchObject({ destination: `${elsewhere.v4}:80`, peername: `${elsewhere.v4}:80` });
      }
    });

    test('MPTCP', async () => {
      const told = await run(pod, `s = sock(V4, 262); s.connect(('${elsewhere.v4}', 80)); out(told(s))`);
      expect(told).toMatchObject({ destination: `${elsewhere.v4}:80`, peername: `${elsewhere.v4}:80` });
      const told6 = await run(pod, `s = sock(V6, 262); s.connect(('${elsewhere.v6}', 80)); out(told(s))`);
      expect(told6).toMatchObject({ destination: `[${elsewhere.v6}]:80`, peername: `[${elsewhere.v6}]:80` });
    });

    test('two MPTCP sockets with one port on different addresses', async () => {
      await pod.output(['ip', 'address', 'replace', '198.51.100.5/32', 'dev', 'lo']);
      const program = `
def dial(source, destination):
    s = sock(V4, 262); s.bind((source, 41001)); s.connect((destination, 80)); return s
a, b = dial('${pod.ip}', '192.0.2.1'), dial('198.51.100.5', '192.0.2.2')
out([told(a), told(b)])`;
      const [a, b] = await run(pod, program);
      expect(a).toMatchObject({ destination: '192.0.2.1:80', peername: '192.0.2.1:80' });
      expect(b).toMatchObject({ destination: '192.0.2.2:80', peername: '192.0.2.2:80' });
    });

    test('a bound source', async () => {
      await pod.output(['ip', 'address', 'replace', '198.51.100.4/32', 'dev', 'lo']);
      const program = `s = sock(); s.bind(('198.51.100.4', 41000)); s.connect(('${elsewhere.v4}', 80)); out(told(s))`;
      const told = await run(pod, program);
      expect(told).toMatchObject({ sockname: '198.51.100.4:41000', remote: '198.51.100.4:41000' });
      expect(told).toMatchObject({ destination: `${elsewhere.v4}:80`, peername: `${elsewhere.v4}:80` });
    });

    test.each([
      ['V4', elsewhere.v4],
      ['V6', elsewhere.v6],
    ])('SO_BINDTODEVICE, %s', async (family, address) => {
      const program = `s = sock(${family}); s.setsockopt(1, 25, b'eth0'); s.connect(('${address}', 80)); out(told(s))`;
      const told = await run(pod, program);
      expect(told.destination).toBe(address.includes(':') ? `[${address}]:80` : `${address}:80`);
      expect(told.sockname).toContain(address.includes(':') ? pod.ip6 : pod.ip);
    });

    test('a socket that does not wait', async () => {
      const program = `
s = sock(); s.setblocking(False)
r = s.connect_ex(('${elsewhere.v4}', 80)); s.settimeout(10)
time.sleep(.1); out([errno.errorcode[r], told(s)])`;
      const [error, told] = await run(pod, program);
      expect(error).toBe('EINPROGRESS');
      expect(told.destination).toBe(`${elsewhere.v4}:80`);
    });
  });

  describe('which port a connection is redirected to', () => {
    /** redirect_port of connect.bpf.c, for IPv4. */
    const hashed = (address: string, port: number) => {
      const [ip, wire] = [Buffer.from(address.split('.').map(Number)), Buffer.from([port >> 8, port & 255])];
      const mixed =
        Math.imul(0xffff0000, 0x85ebca6b) ^
        Math.imul(ip.readUInt32LE(), 0xc2b2ae35) ^
        Math.imul(wire.readUInt16LE(), 0x27d4eb2f);
      return 14_336 + ((Math.imul(mixed, 0x9e3779b1) >>> 16) & 1023);
    };
    const portFor = (wanted: number) =>
      Array.from({ length: 65_535 }, (_, i) => i + 1).find((port) => hashed(elsewhere.v4, port) === wanted)!;

    test.each([15_052, 15_053, 14_336, 15_359])(
      'not %i where the socket itself has that: it would meet itself',
      async (own) => {
        const port = portFor(own);
        const program = `s = sock(); s.bind(('', ${own})); s.connect(('${elsewhere.v4}', ${port})); out(told(s))`;
        expect(await run(pod, program)).toMatchObject({
          listener: 'outbound',
          sockname: `${pod.ip}:${own}`,
          destination: `${elsewhere.v4}:${port}`,
        });
      },
    );

    test('not the one for names, which lies in between', async () => {
      const port = portFor(15_053);
      const told = await run(pod, `s = sock(); s.connect(('${elsewhere.v4}', ${port})); out(told(s))`);
      expect(told).toMatchObject({ listener: 'outbound', destination: `${elsewhere.v4}:${port}` });
      expect(told.local).not.toMatch(/:15053$/);
    });
  });

  test('all of IPv6 excluded says nothing of IPv4', async () => {
    const cookie = datapath.cookie(pod);
    const ranges = datapath.map('excluded_ranges');
    const captured = (excludes?: { ports: boolean; ranges: boolean }) =>
      datapath
        .map('captured')
        .update(encodeU64(cookie), encodeCapturedPod({ ipv4: pod.ip, ipv6: pod.ip6 }, excludes));
    ranges.update(encodeRangeKey(cookie, '::', 0), encodeRangeValue('::'));
    captured({ ports: false, ranges: true });
    try {
      const connect = `s = sock(); s.connect(('${elsewhere.v4}', 80)); out(told(s))`;
      expect(await run(pod, connect)).toMatchObject({ listener: 'outbound' });
      const mapped = `s = sock(V6); s.connect(('::ffff:${elsewhere.v4}', 80)); out(told(s))`;
      expect(await run(pod, mapped)).toMatchObject({ listener: 'outbound' });
      const six = () => run(pod, `out(attempt(('${elsewhere.v6}', 80), V6, 1))`);
      expect((await datapath.counted('passed_excluded', six))[1]).toBe(1);
    } finally {
      captured();
      ranges.delete(encodeRangeKey(cookie, '::', 0));
    }
  });

  test('two sockets with one port on different source addresses get their own destinations', async () => {
    await pod.output(['ip', 'address', 'replace', '198.51.100.9/32', 'dev', 'lo']);
    const program = `
def dial(source, destination):
    s = sock(); s.bind((source, 42000)); s.connect((destination, 80)); return s
a, b = dial('${pod.ip}', '192.0.2.1'), dial('198.51.100.9', '192.0.2.2')
out([told(a), told(b)])`;
    const [a, b] = await run(pod, program);
    expect(a).toMatchObject({
      remote: `${pod.ip}:42000`,
      destination: '192.0.2.1:80',
      peername: '192.0.2.1:80',
    });
    expect(b).toMatchObject({
      remote: '198.51.100.9:42000',
      destination: '192.0.2.2:80',
      peername: '192.0.2.2:80',
    });
  });

  test('a socket that connects anew, plainly, forgets where it went before', async () => {
    const program = `
listener = socket.socket(); listener.bind(('127.0.0.1', 0)); listener.listen()
s = sock(); s.connect(('${elsewhere.v4}', 80)); first = told(s)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.connect(s.fileno(), struct.pack('H14x', 0), 16) == 0
s.connect(listener.getsockname()); out([first, show(s.getpeername()), show(listener.getsockname())])`;
    const [first, peer, listener] = await run(pod, program);
    expect(first.destination).toBe(`${elsewhere.v4}:80`);
    expect(peer).toBe(listener);
  });

  test('an address of a family that the pod has not is refused and counted, not leaked', async () => {
    const program = `out([attempt(('${elsewhere.v6}', 80), V6), attempt(('${elsewhere.v4}', 80))])`;
    const [errors, rise] = await datapath.counted('refused_no_address', () => run(v4Only, program));
    expect(errors).toEqual(['EPERM', '']);
    expect(rise).toBe(1);
  });

  test('loopback in every spelling is plain', async () => {
    const program = `
a = socket.socket(V6); a.setsockopt(41, 26, 0); a.bind(('::', 8081)); a.listen(50)
out([attempt((host, 8081), family) for family, host in
     ((V4, '127.0.0.1'), (V4, '127.9.9.9'), (V6, '::1'), (V6, '::ffff:127.0.0.1'), (V4, '0.0.0.0'), (V6, '::'))])`;
    expect(await run(pod, program)).toEqual(['', '', '', '', '', '']);
    expect(await run(stranger, program)).toEqual(['', '', '', '', '', '']);
  });

  test('UDP is left alone but for port 53 (dns.test.ts)', async () => {
    const program = `
s = socket.socket(V4, socket.SOCK_DGRAM); s.connect(('${elsewhere.v4}', 54)); out(show(s.getpeername()))`;
    expect(await run(pod, program)).toBe(`${elsewhere.v4}:54`);
    expect(await run(stranger, program)).toBe(`${elsewhere.v4}:54`);
  });

  test('a pod not known is refused and counted, by both families', async () => {
    const program = `out([attempt(('${plain.ip}', 8080)), attempt(('${plain.ip6}', 8080), V6), attempt(('::ffff:${plain.ip}', 8080), V6)])`;
    const [errors, rise] = await datapath.counted('refused_unknown', () => run(stranger, program));
    expect(errors).toEqual(['EPERM', 'EPERM', 'EPERM']);
    expect(rise).toBe(3);
  });

  test('a pod listed plain, by its cgroup or by its namespace, is plain', async () => {
    const program = `out(attempt(('${plain.ip}', 8080)))`;
    expect(await run(plain, program)).toBe('');
    const cookie = encodeU64(datapath.cookie(stranger));
    datapath.map('plain_netns').update(cookie, encodeU32(1));
    expect(await run(stranger, program)).toBe('');
    datapath.map('plain_netns').delete(cookie);
    expect(await run(stranger, program)).toBe('EPERM');
  });

  test('a captured namespace is captured, whatever the cgroup is listed as', async () => {
    const program = python(`s = sock(); s.connect(('${elsewhere.v4}', 80)); out(told(s))`);
    const result = await spawnIn(placeOf(plain, pod), program).ended;
    expect(JSON.parse(result.stdout)).toMatchObject({ destination: `${elsewhere.v4}:80` });
  });

  test("the host's namespace is plain, and so is a service of the host", async () => {
    const program = `out(attempt(('${plain.ip}', 8080)))`;
    expect(await run(hostPod, program)).toBe('');
    expect(JSON.parse(await node.output(python(program)))).toBe('');
  });

  test("an agent's pod is plain, in its own namespace and inside a captured one", async () => {
    const program = `s = sock(); s.connect(('${plain.ip}', 8080)); out([show(s.getpeername()), read(s).decode()])`;
    expect(await run(agent, program)).toEqual([`${plain.ip}:8080`, 'plain']);
    const inside = await spawnIn(placeOf(agent, pod), python(program)).ended;
    expect(inside.stderr).toBe('');
    expect(JSON.parse(inside.stdout)).toEqual([`${plain.ip}:8080`, 'plain']);
  });

  test('two agents may be listed at once', async () => {
    const second = await node.pod('second-agent');
    datapath.list(second, 'agent');
    expect(await run(second, `out(attempt(('${plain.ip}', 8080)))`)).toBe('');
    expect(await run(agent, `out(attempt(('${plain.ip}', 8080)))`)).toBe('');
    datapath.forget(second);
    expect(await run(second, `out(attempt(('${plain.ip}', 8080)))`)).toBe('EPERM');
    await second.delete();
  });

  test('nested cgroups belong to their pod', async () => {
    const nested = `
here = [line[3:].strip() for line in open('/proc/self/cgroup') if line.startswith('0::')][0]
root = [line.split()[4] for line in open('/proc/self/mountinfo') if ' - cgroup2 ' in line][0]
path = root + here + '/one/two'
os.makedirs(path)
open(path + '/cgroup.procs', 'w').write(str(os.getpid()))
`;
    expect(await run(plain, `${nested}\nout(attempt(('${plain.ip}', 8080)))`)).toBe('');
    expect(await run(stranger, `${nested}\nout(attempt(('${plain.ip}', 8080)))`)).toBe('EPERM');
    const told = await run(pod, `${nested}\ns = sock(); s.connect(('${elsewhere.v4}', 80)); out(told(s))`);
    expect(told.destination).toBe(`${elsewhere.v4}:80`);
  });

  test('a namespace nested in a captured pod is refused; its loopback works', async () => {
    const program = python(`
assert ctypes.CDLL(None).unshare(0x40000000) == 0
os.system('ip link set lo up')
a = socket.socket(); a.bind(('127.0.0.1', 8081)); a.listen()
out([attempt(('${elsewhere.v4}', 80)), attempt(('127.0.0.1', 8081))])`);
    const [result, rise] = await datapath.counted('refused_unknown', () => pod.output(program));
    expect(JSON.parse(result)).toEqual(['EPERM', '']);
    expect(rise).toBe(1);
  });

  test('a pod leaves the mesh, and comes back, while it runs', async () => {
    const key = encodeU64(datapath.cookie(v4Only));
    const value = datapath.map('captured').lookup(key)!;
    expect(value).toEqual(encodeCapturedPod({ ipv4: v4Only.ip, ipv6: null }));
    datapath.map('captured').delete(key);
    datapath.list(v4Only, 'plain');
    expect(await run(v4Only, `s = sock(); s.connect(('${plain.ip}', 8080)); out(read(s).decode())`)).toBe(
      'plain',
    );
    datapath.map('captured').update(key, value);
    expect(await run(v4Only, `s = sock(); s.connect(('${plain.ip}', 8080)); out(told(s))`)).toMatchObject({
      destination: `${plain.ip}:8080`,
    });
  });
});

const server = `
l = socket.socket(V6, TCP); l.setsockopt(41, 26, 0); l.setsockopt(1, 2, 1); l.bind(('::', 8080)); l.listen(100)
print('ready', flush=True)
while True:
    c, _ = l.accept(); c.send(b'plain'); c.close()`;
