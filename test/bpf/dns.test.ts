import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { encodeCapturedPod, encodeU64 } from '../../native/bpf/index.js';
import { Lab, type LabNode, type LabPod } from '../lab/index.js';
import { Datapath } from './support/datapath.js';
import { python } from './support/python.js';

const server4 = '192.0.2.53';
const server6 = '2001:db8::53';

/** Says to whoever asks what it saw of the question; ends with the lab. */
const listener = (pod: LabPod) => `
import select
socks = []
for family, address in [(V4, '${pod.ip}'), (V6, '${pod.ip6}')]:
    s = socket.socket(family, socket.SOCK_DGRAM); s.bind((address, 15053)); socks.append(s)
print('ready', flush=True)
while True:
    for s in select.select(socks, [], [])[0]:
        data, source = s.recvfrom(4096); s.sendto(b'from ' + show(source).encode(), source)
`;
const udp = 'def udp(f=V4):\n    s = socket.socket(f, socket.SOCK_DGRAM); s.settimeout(3); return s\n';

describe('cgroup/sendmsg4|6, recvmsg4|6, connect4|6 on UDP: questions for names', () => {
  let lab: Lab;
  let node: LabNode;
  let datapath: Datapath;
  let pod: LabPod;
  let optedOut: LabPod;
  let plain: LabPod;
  let stranger: LabPod;

  const capture = (which: LabPod, dns: boolean) =>
    datapath
      .map('captured')
      .update(
        encodeU64(datapath.captureOutbound(which)),
        encodeCapturedPod({ ipv4: which.ip, ipv6: which.ip6, dns }),
      );

  beforeAll(async () => {
    lab = await Lab.create();
    node = await lab.node('a');
    [pod, optedOut, plain, stranger] = await Promise.all([
      node.pod('pod'),
      node.pod('out'),
      node.pod('plain'),
      node.pod('stranger'),
    ]);
    datapath = new Datapath(node);
    capture(pod, true);
    capture(optedOut, false);
    datapath.list(plain, 'plain');
    datapath.attach();
    // The agent's own listener: a process in no pod's cgroup.
    await node
      .spawn(['nsenter', `--net=/run/netns/${pod.netns}`, '--', ...python(listener(pod))])
      .waitForOutput(/ready/);
    datapath.serve('dns', datapath.listen(pod, 15053), datapath.cookie(pod));
  }, 60_000);

  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  const run = async (where: LabPod, program: string) =>
    JSON.parse(await where.output(python(`${udp}${program}`)));
  const asked = (pod: LabPod) => new RegExp(`^from (${pod.ip}|\\[${pod.ip6}\\]):`);

  test.each([
    ['IPv4', 'V4', server4, server4],
    ['IPv6', 'V6', server6, server6],
    ['IPv4 through an IPv6 socket', 'V6', `::ffff:${server4}`, `::ffff:${server4}`],
  ])('unconnected, %s: the answer seems to come from the server asked', async (_, family, to, from) => {
    const got = await run(
      pod,
      `s = udp(${family}); s.sendto(b'q', ('${to}', 53)); d, a = s.recvfrom(999); out([d.decode(), a[0], a[1]])`,
    );
    expect(got[0]).toMatch(asked(pod));
    expect(got.slice(1)).toEqual([from, 53]);
  });

  test.each([
    ['IPv4', 'V4', server4],
    ['IPv6', 'V6', server6],
    ['IPv4 through an IPv6 socket', 'V6', `::ffff:${server4}`],
  ])('connected, %s: send, recvfrom, getpeername, getsockname', async (_, family, to) => {
    const got = await run(
      pod,
      `s = udp(${family}); s.connect(('${to}', 53)); s.send(b'q'); d, a = s.recvfrom(999)
out([d.decode(), a[0], a[1], s.getpeername()[0], s.getpeername()[1], s.getsockname()[0]])`,
    );
    expect(got[0]).toMatch(asked(pod));
    expect(got.slice(1, 5)).toEqual([to, 53, to, 53]);
    expect(got[5].replace('::ffff:', '')).toBe(to.startsWith('2001') ? pod.ip6 : pod.ip);
  });

  test('a socket that connects elsewhere afterwards is plain again', async () => {
    const got = await run(
      pod,
      `s = udp(); s.connect(('${server4}', 53)); s.connect(('${server4}', 5353)); out(list(s.getpeername()))`,
    );
    expect(got).toEqual([server4, 5353]);
  });

  test('TCP to port 53 goes to the same listener, with its original destination', async () => {
    const told = await run(pod, `s = sock(); s.connect(('${server4}', 53)); out(told(s))`);
    expect(told).toMatchObject({ listener: 'dns', destination: `${server4}:53`, peername: `${server4}:53` });
  });

  test('other ports, loopback, pods opted out and plain pods are left alone', async () => {
    const silent = `
s = udp(); s.settimeout(0.3)
def ask(to):
    s.sendto(b'q', to)
    try: return s.recvfrom(999)[0].decode()
    except TimeoutError: return 'nothing'
    except OSError as e: return errno.errorcode[e.errno]
`;
    expect(await run(pod, `${silent}out(ask(('${server4}', 54)))`)).toBe('nothing');
    expect(await run(optedOut, `${silent}out(ask(('${server4}', 53)))`)).toBe('nothing');
    expect(await run(plain, `${silent}out(ask(('${server4}', 53)))`)).toBe('nothing');
    const loop = `o = udp(); o.bind(('127.0.0.1', 53)); t = udp(); t.sendto(b'q', ('127.0.0.1', 53)); out(o.recvfrom(9)[0].decode())`;
    expect(await run(pod, loop)).toBe('q');
    const told = await run(optedOut, `s = sock(); s.connect(('${server4}', 53)); out(told(s))`);
    expect(told).toMatchObject({ listener: 'outbound', destination: `${server4}:53` });
  });

  test('a pod not known is refused, and counted', async () => {
    const program = `
def name(f):
    try: f(); return ''
    except OSError as e: return errno.errorcode[e.errno]
out([name(lambda: udp().sendto(b'q', ('${server4}', 53))), name(lambda: udp(V6).sendto(b'q', ('${server6}', 53))),
     name(lambda: udp().connect(('${server4}', 53))), name(lambda: udp(V6).connect(('${server6}', 53))),
     name(lambda: udp().sendto(b'q', ('${server4}', 54)))])`;
    const [got, rise] = await datapath.counted('refused_unknown', () => run(stranger, program));
    expect(got).toEqual(['EPERM', 'EPERM', 'EPERM', 'EPERM', '']);
    expect(rise).toBe(4);
  });

  test('without a listener nothing leaves: a connected socket hears that it is refused', async () => {
    capture(optedOut, true);
    const got = await run(
      optedOut,
      `s = udp(); s.connect(('${server4}', 53)); s.send(b'q')
try: s.recv(9)
except OSError as e: out(errno.errorcode[e.errno])`,
    );
    expect(got).toBe('ECONNREFUSED');
    capture(optedOut, false);
  });
});
