import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { encodeDialKey, encodeEndpoint } from '../../native/bpf/index.js';
import { Lab, type LabNode, type LabPod, type LabProcess, type Place, waitFor } from '../lab/index.js';
import { outputIn } from '../lab/process.js';
import { Datapath, placeOf } from './support/datapath.js';
import { python, pythonBpf } from './support/python.js';

const MAX_DIALS = 16;

/** The agent dials the application from 127/8; the application sees the caller that the agent names. */
describe('the address that the application sees', () => {
  let lab: Lab;
  let node: LabNode;
  let datapath: Datapath;
  let pod: LabPod;
  let agent: LabPod;
  let app: LabProcess;

  beforeAll(async () => {
    lab = await Lab.create();
    node = await lab.node('a');
    [pod, agent] = await Promise.all([node.pod('pod'), node.pod('agent')]);
    datapath = new Datapath(node, { maxEntries: { callers: MAX_DIALS } });
    datapath.captureOutbound(pod);
    datapath.captureInbound(pod);
    datapath.list(agent, 'agent');
    datapath.attach();
    datapath.bpf.ensureBpffs(node.bpffsDir);
    for (const map of ['callers', 'caller_sk']) datapath.map(map).pin(join(node.bpffsDir, map));
    app = pod.spawn(python(server));
    await app.waitForOutput(/ready/);
  }, 60_000);

  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  /** Runs as the agent inside the pod's namespace. */
  const dial = async (program: string, place: Place = placeOf(agent, pod)) =>
    JSON.parse(
      await outputIn(place, python(`${pythonBpf}${dialer}${program}`, node.bpffsDir), { timeoutMs: 90_000 }),
    );
  const entries = () => [...datapath.map('callers').entries()];

  test.each([
    ['V4', 'ip', '127.1.2.3', '203.0.113.9', 1234, '203.0.113.9:1234', 8080],
    ['V6', 'ip6', '::1', '2001:db8::9', 1234, '[2001:db8::9]:1234', 8080],
    ['V4', 'ip', '127.1.2.3', '203.0.113.9', 65535, '203.0.113.9:65535', 8081],
    ['V4, an IPv6 caller', 'ip', '127.1.2.3', '2001:db8::9', 7, '[2001:db8::9]:7', 8080],
    ['V6, an IPv4 caller', 'ip6', '::1', '203.0.113.9', 7, '203.0.113.9:7', 8080],
  ] as const)('accept and getpeername, %s', async (_, family, from, address, port, shown, to) => {
    const program = `
s = socket_for('${pod[family]}', '${from}'); set_caller(storage, s, '${address}', ${port}); s.connect(('${pod[family]}', ${to}))
out([caller_state(storage, s), json.loads(s.recv(999))])`;
    const [state, seen] = await dial(program);
    expect(state).toBe(1);
    expect(seen).toEqual({ accept: shown, getpeername: shown, sockname: expect.stringContaining(`${to}`) });
    await waitFor('the entry to go', () => entries().length === 0);
  });

  test('an IPv6 caller on an IPv4-only socket shows no address at all rather than a local one', async () => {
    const program = `
s = socket_for('${pod.ip}', '127.0.0.9'); set_caller(storage, s, '2001:db8::9', 77); s.connect(('${pod.ip}', 8081))
out(json.loads(s.recv(999)))`;
    expect(await dial(program)).toMatchObject({ accept: '0.0.0.0:77', getpeername: '0.0.0.0:77' });
  });

  test('a connection for which no caller was named shows what it is', async () => {
    const program = `s = socket_for('${pod.ip}', '127.0.0.9'); s.connect(('${pod.ip}', 8080)); out([show(s.getsockname()), json.loads(s.recv(999))])`;
    const [own, seen] = await dial(program);
    expect(seen).toMatchObject({ accept: own, getpeername: own });
  });

  test('the agent may be outside the pods: sock_ops at its own cgroup', async () => {
    const place = { cgroup: node.hostPlace('agent').cgroup, netns: pod.netns };
    const program = `
s = socket_for('${pod.ip}', '127.0.0.9'); set_caller(storage, s, '203.0.113.5', 55); s.connect(('${pod.ip}', 8080))
out([caller_state(storage, s), json.loads(s.recv(999))['accept']])`;
    const [state, accept] = await dial(program, place);
    expect([state, accept]).toEqual([0, expect.stringContaining('127.0.0.9')]);
    datapath.attachAgent(place.cgroup);
    expect(await dial(program, place)).toEqual([1, '203.0.113.5:55']);
  });

  test.each([
    ['refused', 9999, 's.connect_ex((address, port)); s.close()'],
    ['given up', 8082, 's.setblocking(False); s.connect_ex((address, port)); s.close()'],
  ])('a dial that is %s leaves no entry', async (_, port, act) => {
    const program = `
address, port = '${pod.ip}', ${port}
s = socket_for(address, '127.0.0.9'); set_caller(storage, s, '203.0.113.5', 55); ${act}; out(1)`;
    expect(await dial(program)).toBe(1);
    await waitFor('the entry to go', () => entries().length === 0);
  });

  test('3,000 of 3,000 live connections, from rotating sources, each with its own caller', async () => {
    const program = `
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
open('/proc/sys/net/ipv4/ip_local_port_range', 'w').write('40000 40299')
held, wrong = [], []
for i in range(3000):
    s = socket_for('${pod.ip}', f'127.0.{i // 200}.{i % 200 + 1}')
    set_caller(storage, s, f'203.0.{i // 250}.{i % 250}', 10000 + i)
    s.connect(('${pod.ip}', 8080)); held.append(s)
    seen = json.loads(s.recv(999)); want = f'203.0.{i // 250}.{i % 250}:{10000 + i}'
    if not seen['accept'] == seen['getpeername'] == want: wrong.append([want, seen])
out([len(held), wrong])`;
    expect(await dial(program)).toEqual([3000, []]);
    await waitFor('the entries to go', () => entries().length === 0);
  }, 120_000);

  test('a full map refuses the dial with EPERM, counted', async () => {
    const cookie = datapath.cookie(pod);
    const keys = Array.from({ length: MAX_DIALS }, (_, port) =>
      encodeDialKey(cookie, { address: '127.0.0.1', port }, { address: '127.0.0.1', port }),
    );
    const value = encodeEndpoint({ address: '203.0.113.5', port: 55 });
    datapath.map('callers').updateBatch(keys.map((key) => [key, value] as const));
    const program = `
s = socket_for('${pod.ip}', '127.0.0.9'); set_caller(storage, s, '203.0.113.5', 55)
other = socket_for('${pod.ip}', '127.0.0.9')
out([errno.errorcode.get(s.connect_ex(('${pod.ip}', 8080))), other.connect_ex(('${pod.ip}', 8080))])`;
    const [result, rise] = await datapath.counted('refused_callers_full', () => dial(program));
    expect(result).toEqual(['EPERM', 0]);
    expect(rise).toBe(1);

    // where no connect hook is (an agent outside the pods), the socket's storage tells
    const place = { cgroup: node.hostPlace('agent').cgroup, netns: pod.netns };
    const lost = `
s = socket_for('${pod.ip}', '127.0.0.9'); set_caller(storage, s, '203.0.113.5', 55); s.connect(('${pod.ip}', 8080))
out(caller_state(storage, s))`;
    expect(await datapath.counted('lost_caller', () => dial(lost, place))).toEqual([2, 1]);
    for (const key of keys) datapath.map('callers').delete(key);
  });
});

const dialer = `
storage = pinned(sys.argv[1] + '/caller_sk')
def socket_for(address, source):
    s = sock(V6 if ':' in address else V4)
    s.setsockopt(0, 24, 1)
    s.bind((source, 0))
    return s
`;

/** Tells every client whom it takes it for: 8080 dual-stack, 8081 IPv4. 8082 never accepts. */
const server = `
import resource, selectors; resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
def listener(family, address, port):
    l = socket.socket(family, TCP); l.setsockopt(1, 2, 1)
    if family == V6: l.setsockopt(41, 26, 0)
    l.bind((address, port)); l.listen(1024); return l
select = selectors.DefaultSelector()
for l in (listener(V6, '::', 8080), listener(V4, '0.0.0.0', 8081)): select.register(l, selectors.EVENT_READ)
full = listener(V4, '0.0.0.0', 8082)
def plain(a): return show((a[0].replace('::ffff:', ''), a[1]))
print('ready', flush=True)
held = []
while True:
    for key, _ in select.select():
        try:
            c, a = key.fileobj.accept()
            told = {'accept': plain(a), 'getpeername': plain(c.getpeername()), 'sockname': plain(c.getsockname())}
            c.send(json.dumps(told).encode()); held.append(c)
        except OSError: pass`;
