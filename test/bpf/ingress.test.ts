import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { encodeU32, encodeU64 } from '../../native/bpf/index.js';
import { Lab, type LabNode, type LabPod, waitFor } from '../lab/index.js';
import { Datapath } from './support/datapath.js';
import { python } from './support/python.js';

/** Inbound connections of a pod that nobody knows yet are held; all others never notice. */
describe('cgroup_skb/ingress', () => {
  let lab: Lab;
  let node: LabNode;
  let datapath: Datapath;
  let early: LabPod;

  beforeAll(async () => {
    lab = await Lab.create();
    node = await lab.node('a');
    early = await node.pod('early');
    datapath = new Datapath(node);
  }, 60_000);

  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  const fromNode = async (program: string) => JSON.parse(await node.output(python(program)));
  const serve = async (pod: LabPod) => {
    await pod.spawn(python(server)).waitForOutput(/ready/);
  };

  test('connections that stood before the program came are untouched', async () => {
    await serve(early);
    const client = node.spawn(
      python(`s = sock(); s.connect(('${early.ip}', 8080)); print('up', flush=True); sys.stdin.readline()
s.send(b'ping'); out(s.recv(9).decode())`),
    );
    await client.waitForOutput(/up/);
    datapath.attach();
    client.write('\n');
    await client.waitForOutput(/"ping"/);
  });

  test.each(['ip', 'ip6'] as const)(
    'a SYN is dropped until the pod is known; the retry of the peer connects (%s)',
    async (family) => {
      const pod = await node.pod(`young-${family}`, { qos: family === 'ip' ? 'guaranteed' : 'besteffort' });
      await serve(pod);
      const before = datapath.counter('held_unknown');
      const client = node.spawn(
        python(
          `s = sock(${family === 'ip' ? 'V4' : 'V6'}); s.connect(('${pod[family]}', 8080)); s.send(b'ping'); out(s.recv(9).decode())`,
        ),
      );
      await waitFor('the SYN to be dropped', () => datapath.counter('held_unknown') > before);
      expect(client.running).toBe(true);
      if (family === 'ip') datapath.list(pod, 'plain');
      else {
        datapath.capture(pod);
        datapath.list(pod, 'captured');
      }
      await client.waitForOutput(/"ping"/);
      const known = datapath.counter('held_unknown');
      await fromNode(`s = sock(); s.connect(('${pod.ip}', 8080)); s.send(b'x'); out(s.recv(9).decode())`);
      expect(datapath.counter('held_unknown')).toBe(known);
    },
  );

  test('in a captured pod only the captured namespace is known: not the next one, nor one that it makes itself', async () => {
    const pod = await node.pod('again');
    await serve(pod);
    datapath.list(pod, 'captured');
    expect(await fromNode(`out(attempt(('${pod.ip}', 8080), V4, 0.5))`)).toBe('TIMEOUT');
    datapath.capture(pod);
    expect(await fromNode(`out(attempt(('${pod.ip}', 8080)))`)).toBe('');
  });

  test('a pod not known reaches its own loopback', async () => {
    const pod = await node.pod('lonely');
    await serve(pod);
    const program = `out([attempt(('127.0.0.1', 8080)), attempt(('::1', 8080), V6)])`;
    expect(JSON.parse(await pod.output(python(program)))).toEqual(['', '']);
  });

  test('pods on the host network come up without us', async () => {
    const pod = await node.pod('static', { hostNetwork: true });
    await serve(pod);
    expect(await fromNode(`out(attempt(('${node.ip}', 8080)))`)).toBe('');
    const other = await lab.node('b');
    const program = `s = sock(); s.connect(('${node.ip}', 8080)); s.send(b'ping'); out(s.recv(9).decode())`;
    expect(JSON.parse(await other.output(python(program)))).toBe('ping');
  });

  test('a namespace listed plain is known', async () => {
    const pod = await node.pod('odd');
    await serve(pod);
    expect(await fromNode(`out(attempt(('${pod.ip}', 8080), V4, 0.5))`)).toBe('TIMEOUT');
    datapath.map('plain_netns').update(encodeU64(datapath.cookie(pod)), encodeU32(1));
    expect(await fromNode(`out(attempt(('${pod.ip}', 8080)))`)).toBe('');
  });

  test('a pod not known keeps what it dialled and got before; UDP passes', async () => {
    const pod = await node.pod('udp');
    await serve(pod);
    const program = `
u = socket.socket(V4, socket.SOCK_DGRAM); u.settimeout(10); u.sendto(b'ping', ('${pod.ip}', 8080)); out(u.recv(9).decode())`;
    expect(await fromNode(program)).toBe('ping');
  });
});

const server = `
import threading
l = socket.socket(V6, TCP); l.setsockopt(41, 26, 0); l.setsockopt(1, 2, 1); l.bind(('::', 8080)); l.listen(100)
u = socket.socket(V4, socket.SOCK_DGRAM); u.bind(('0.0.0.0', 8080))
def udp():
    while True:
        data, sender = u.recvfrom(99); u.sendto(data, sender)
def tcp(c):
    try:
        while (data := c.recv(99)): c.send(data)
    except OSError: pass
threading.Thread(target=udp, daemon=True).start()
print('ready', flush=True)
while True: threading.Thread(target=tcp, args=(l.accept()[0],), daemon=True).start()`;
