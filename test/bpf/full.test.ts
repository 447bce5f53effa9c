import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { encodePortKey, encodeRangeKey, encodeU32 } from '../../native/bpf/index.js';
import { Lab, type LabNode, type LabPod, waitFor } from '../lab/index.js';
import { spawnIn } from '../lab/process.js';
import { Datapath, objectPath } from './support/datapath.js';
import { python } from './support/python.js';

/** Maps of pods that are full: whoever is not in them is refused. original.test.ts and caller.test.ts have those of connections. */
describe('full maps', () => {
  let lab: Lab;
  let node: LabNode;
  let datapath: Datapath;
  let first: LabPod;
  let second: LabPod;
  const one = {
    pod_cgroups: 1,
    captured: 1,
    plain_netns: 1,
    excluded_ports: 1,
    excluded_ranges: 1,
    mptcp_peers: 1,
    tickets: 8,
  };

  beforeAll(async () => {
    lab = await Lab.create();
    node = await lab.node('a');
    first = await node.pod('first');
    second = await node.pod('second');
    datapath = new Datapath(node, { maxEntries: one });
    datapath.captureOutbound(first);
    datapath.attach();
  }, 60_000);
  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  const attempt = async (pod: LabPod) =>
    JSON.parse(await pod.output(python(`out(attempt(('${node.ip}', 9), timeout=2))`))) as string;

  test('pod_cgroups, captured: the next pod cannot be listed, and is refused and counted', async () => {
    expect(() => datapath.list(second, 'plain')).toThrow(/E2BIG/);
    expect(() => datapath.capture(second)).toThrow(/E2BIG/);
    expect(await datapath.counted('refused_unknown', () => attempt(second))).toEqual(['EPERM', 1]);
    expect(await attempt(first)).toBe('');
  });

  test.each([
    ['excluded_ports', (cookie: bigint) => encodePortKey(cookie, 80, 'outbound'), /E2BIG/],
    ['excluded_ranges', (cookie: bigint) => encodeRangeKey(cookie, '10.0.0.0', 8), /ENOSPC/],
  ])(
    '%s: the exclusion cannot be written, so its pod is not captured with less than it asks for',
    (name, key, error) => {
      const map = datapath.map(name);
      expect(map.update(key(1n), encodeU32(1))).toBe(true);
      expect(() => map.update(key(2n), encodeU32(1))).toThrow(error);
      expect(map.delete(key(1n))).toBe(true);
    },
  );

  test('mptcp_peers: connections go on, but do not know their peer; each is counted', async () => {
    const program = `
def dial(): s = sock(V4, 262); s.connect(('192.0.2.7', 80)); return s
a = dial(); b = dial(); names = [show(s.getpeername()) for s in (a, b)]
ends = [told(s)['destination'] for s in (a, b)]; a.close(); b.close(); time.sleep(.2)
c = dial(); out([names, ends, told(c)['peername']])`;
    const [result, rise] = await datapath.counted('lost_peer_name', () => first.output(python(program)));
    const [[known, unknown], ends, later] = JSON.parse(result);
    expect([known, later]).toEqual(['192.0.2.7:80', '192.0.2.7:80']);
    expect(unknown).toMatch(new RegExp(`^${first.ip}:`));
    expect(ends).toEqual(['192.0.2.7:80', '192.0.2.7:80']);
    expect(rise).toBe(1);
  });

  test('tickets: the oldest goes, the next probe passes; without one it comes to the agent', async () => {
    datapath.captureInbound(first);
    const program = datapath.bpf.load(objectPath('probes'), {
      rodata: { host_netns_cookie: datapath.cookie(node) },
      reuseMaps: Object.fromEntries(datapath.objects.connect.maps),
    });
    const kubelet = node.hostPlace('kubelet');
    using _ = datapath.bpf.attachCgroup(program.program('probe_tickets'), kubelet.cgroup);
    await first.spawn(python(server)).waitForOutput(/ready/);
    const hold = `
held = []
for i in range(40):
    s = sock(); s.connect(('${first.ip}', 8080)); held.append(s)
out([s.recv(3).decode() for s in held]); sys.stdin.read()`;
    const probes = spawnIn(kubelet, python(hold));
    const [told] = await probes.waitForOutput(/^\[.*\]$/m);
    expect(JSON.parse(told)).toEqual(new Array(40).fill('app'));
    expect([...datapath.map('tickets').entries()].length).toBeLessThanOrEqual(8);
    // Who is not kubelet has none, whatever it reuses.
    expect(
      JSON.parse(await node.output(python(`s = sock(); s.connect(('${first.ip}', 8080)); out(told(s))`))),
    ).toMatchObject({ listener: 'inbound' });
    await probes.stop('SIGKILL');
    await waitFor('tickets to go', () => [...datapath.map('tickets').entries()].length === 0);
    program.close();
  });
});

const server = `
import threading
l = socket.create_server(('', 8080), backlog=100); kept = []
print('ready', flush=True)
while True:
    c, _ = l.accept(); c.send(b'app'); kept.append(c)`;
