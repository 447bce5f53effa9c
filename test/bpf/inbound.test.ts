import { closeSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { encodeU32, listenerSlot } from '../../native/bpf/index.js';
import { Lab, type LabNode, type LabPod } from '../lab/index.js';
import { Datapath, type Inbound, setSlot } from './support/datapath.js';
import { python } from './support/python.js';

describe('sk_lookup in a pod', () => {
  let lab: Lab;
  let node: LabNode;
  let datapath: Datapath;
  let pod: LabPod;
  let inbound: Inbound;

  beforeAll(async () => {
    lab = await Lab.create();
    node = await lab.node('a');
    pod = await node.pod('pod');
    datapath = new Datapath(node);
    datapath.captureOutbound(pod);
    inbound = datapath.captureInbound(pod);
    datapath.attach();
    await pod.spawn(python(server)).waitForOutput(/ready/);
  }, 60_000);

  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  /** From the node, which is outside the mesh. */
  const fromNode = async (program: string) => JSON.parse(await node.output(python(program)));
  const inPod = async (program: string, where: LabPod = pod) =>
    JSON.parse(await where.output(python(program)));

  test.each([
    ['V4', 1, 'inbound'],
    ['V4', 8080, 'inbound'],
    ['V4', 15001, 'inbound'],
    ['V4', 15006, 'inbound'],
    ['V4', 15008, 'hbone'],
    ['V4', 65535, 'inbound'],
    ['V6', 8080, 'inbound'],
    ['V6', 15008, 'hbone'],
    ['V6', 31999, 'inbound'],
  ] as const)(
    'steers %s port %i to %s; the local address is the original destination',
    async (family, port, slot) => {
      const address = family === 'V4' ? pod.ip : pod.ip6;
      const told = await fromNode(`s = sock(${family}); s.connect(('${address}', ${port})); out(told(s))`);
      const local = family === 'V4' ? `${address}:${port}` : `[${address}]:${port}`;
      expect(told).toMatchObject({ listener: slot, local, peername: local });
      expect(told.remote).toBe(told.sockname);
    },
  );

  test('lets through what comes from within: 127/8, ::1, and the pod itself', async () => {
    const program = `
def ask(source, address, family=V4):
    s = sock(family); s.bind((source, 0)); s.connect((address, 8080)); return read(s).decode()
out([ask('127.0.0.1', '127.0.0.1'), ask('127.3.2.1', '${pod.ip}'), ask('::1', '${pod.ip6}', V6), ask('::1', '::1', V6)])`;
    // from the agent's side nothing is redirected, so connections to the own address stay what they are
    datapath.list(pod, 'agent');
    try {
      expect(await inPod(program)).toEqual(['app', 'app', 'app', 'app']);
      expect(await inPod(`s = sock(); s.connect(('${pod.ip}', 8080)); out(read(s).decode())`)).toBe('app');
      expect(await inPod(`s = sock(V6); s.connect(('${pod.ip6}', 8080)); out(read(s).decode())`)).toBe('app');
    } finally {
      datapath.list(pod, 'captured');
    }
  });

  test('does not take redirected connections for inbound ones, wherever they are bound', async () => {
    await pod.output(['ip', 'address', 'replace', '198.51.100.4/32', 'dev', 'lo']);
    await pod.output(['ip', 'address', 'replace', '2001:db8:4::4/128', 'dev', 'lo']);
    const dial = (bind: string, address: string, family: string) =>
      inPod(`s = sock(${family}); ${bind}; s.connect(('${address}', 80)); out(told(s))`);
    for (const told of [
      await dial('pass', '192.0.2.7', 'V4'),
      await dial(`s.bind(('198.51.100.4', 0))`, '192.0.2.7', 'V4'),
      await dial(`s.setsockopt(1, 25, b'eth0')`, '192.0.2.7', 'V4'),
    ]) {
      expect(told).toMatchObject({ listener: 'outbound', destination: '192.0.2.7:80' });
    }
    const told6 = await dial(`s.bind(('2001:db8:4::4', 0))`, '2001:db8:7::7', 'V6');
    expect(told6).toMatchObject({ listener: 'outbound', destination: '[2001:db8:7::7]:80' });
  });

  test('a missing listener refuses, counted, also where the application listens', async () => {
    const empty = await node.pod('empty');
    datapath.list(empty, 'captured');
    datapath.captureInbound(empty, { empty: true });
    await empty.spawn(python(server)).waitForOutput(/ready/);
    const program = `out([attempt(('${empty.ip}', p)) for p in (8080, 15008)] + [attempt(('${empty.ip6}', 8080), V6)])`;
    const [result, rise] = await datapath.counted('dropped_no_listener', () => fromNode(program));
    expect(result).toEqual(['ECONNREFUSED', 'ECONNREFUSED', 'ECONNREFUSED']);
    expect(rise).toBeGreaterThanOrEqual(3);
  });

  test('a slot with an IPv4 listener takes IPv4 and refuses IPv6, counted', async () => {
    const narrow = await node.pod('narrow');
    datapath.list(narrow, 'captured');
    const { slots } = datapath.captureInbound(narrow, { empty: true });
    const fd = datapath.listen(narrow, 15006, 'ipv4');
    setSlot(slots, 'inbound', fd);
    datapath.serve('inbound', fd, datapath.cookie(narrow));
    expect(await fromNode(`s = sock(); s.connect(('${narrow.ip}', 80)); out(told(s))`)).toMatchObject({
      listener: 'inbound',
      local: `${narrow.ip}:80`,
    });
    const [result, rise] = await datapath.counted('dropped_not_assigned', () =>
      fromNode(`out(attempt(('${narrow.ip6}', 80), V6))`),
    );
    expect(result).toBe('ECONNREFUSED');
    expect(rise).toBeGreaterThanOrEqual(1);
  });

  describe('SO_REUSEPORT', () => {
    let spread: LabPod;
    let own: Inbound;

    beforeAll(async () => {
      spread = await node.pod('spread');
      datapath.list(spread, 'captured');
      own = datapath.captureInbound(spread, { empty: true });
    });

    const many = (count: number) =>
      fromNode(`
out([(lambda s: (s.connect(('${spread.ip}', 9000)), told(s)['listener'], s.close())[1])(sock()) for i in range(${count})])`);

    test('spreads over the group, and a slot rewritten before its member closes loses nothing', async () => {
      const cookie = datapath.cookie(spread);
      const [first, second] = [datapath.listen(spread, 15006), datapath.listen(spread, 15006)];
      const members = [datapath.serve('first', first, cookie), datapath.serve('second', second, cookie)];
      setSlot(own.slots, 'inbound', first);
      const before: string[] = await many(60);
      expect(new Set(before)).toEqual(new Set(['first', 'second']));

      setSlot(own.slots, 'inbound', second);
      await new Promise((resolve) => members[0]!.close(resolve));
      const [after, rise] = await datapath.counted('dropped_no_listener', () => many(20));
      expect(after).toEqual(new Array(20).fill('second'));
      expect(rise).toBe(0);
    });

    test('a slot whose member closes is empty, though others of the group live: refused', async () => {
      const other = datapath.listen(spread, 15006);
      const third = datapath.listen(spread, 15006);
      setSlot(own.slots, 'inbound', other);
      expect(own.slots.lookup(encodeU32(listenerSlot.inbound))).not.toBeNull();
      closeSync(other);
      expect(own.slots.lookup(encodeU32(listenerSlot.inbound))).toBeNull();
      expect(own.slots.delete(encodeU32(listenerSlot.inbound))).toBe(false);
      expect(await fromNode(`out(attempt(('${spread.ip}', 9000)))`)).toBe('ECONNREFUSED');
      closeSync(third);
    });
  });

  test('connections reach the application once the pod is plain and the program taken off', async () => {
    const leaver = await node.pod('leaver');
    datapath.captureOutbound(leaver);
    const { link } = datapath.captureInbound(leaver);
    await leaver.spawn(python(server)).waitForOutput(/ready/);
    const ask = `s = sock(); s.connect(('${leaver.ip}', 8080)); out(read(s).decode())`;
    expect(JSON.parse(await fromNode(ask))).toMatchObject({ listener: 'inbound' });
    datapath.list(leaver, 'plain');
    link.detach();
    expect(await fromNode(ask)).toBe('app');
  });

  test('UDP is left alone', async () => {
    const program = `
u = socket.socket(V4, socket.SOCK_DGRAM); u.settimeout(10); u.sendto(b'ping', ('${pod.ip}', 8080)); out(u.recv(9).decode())`;
    expect(await fromNode(program)).toBe('ping');
  });

  test('the program is the only one of its hook', () => {
    using netns = datapath.net.openNetns(`/run/netns/${pod.netns}`);
    const attached = datapath.bpf.attached(netns.fd, inbound.object.program('inbound').attachType);
    expect(attached.map((one) => one.name)).toEqual(['inbound']);
    expect(inbound.link.info()).toMatchObject({ type: 'netns', target: netns.inode });
  });
});

const server = `
import threading
l = socket.socket(V6, TCP); l.setsockopt(41, 26, 0); l.setsockopt(1, 2, 1); l.bind(('::', 8080)); l.listen(100)
u = socket.socket(V4, socket.SOCK_DGRAM); u.bind(('0.0.0.0', 8080))
def echo():
    while True:
        data, sender = u.recvfrom(99); u.sendto(data, sender)
threading.Thread(target=echo, daemon=True).start()
print('ready', flush=True)
while True:
    c, _ = l.accept(); c.send(b'app'); c.close()`;
