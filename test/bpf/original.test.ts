import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { decodeOriginalKey, encodeEndpoint, encodeOriginalKey, encodeU32 } from '../../native/bpf/index.js';
import { Lab, type LabPod, type LabProcess, waitFor } from '../lab/index.js';
import { Datapath } from './support/datapath.js';
import { python } from './support/python.js';

const MAX_CONNECTIONS = 8;

/** The hash of original destinations: what is in it when, and what happens when it is full. */
describe('original destinations', () => {
  let lab: Lab;
  let datapath: Datapath;
  /** Its connections wait to be accepted. */
  let pod: LabPod;
  let accepting: LabPod;
  let cookie: bigint;

  beforeAll(async () => {
    lab = await Lab.create();
    const node = await lab.node('a');
    pod = await node.pod('pod');
    datapath = new Datapath(node, { maxEntries: { original_dst: MAX_CONNECTIONS } });
    cookie = datapath.captureOutbound(pod, { accepts: false });
    accepting = await node.pod('accepting');
    datapath.captureOutbound(accepting);
    datapath.attach();
  }, 60_000);

  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  const entries = () => [...datapath.map('original_dst').entries()].map(([key]) => decodeOriginalKey(key));

  /** The port of the pod that a connection waiting to be accepted was sent to. */
  const redirectedTo = (port: number) => {
    const [key] = [...datapath.map('original_dst').entries()].find(
      ([one]) => decodeOriginalKey(one).source.port === port,
    )!;
    return key.readUInt16BE(28);
  };

  /** A process that connects, says its port, and does the next thing for every line it gets. */
  async function connected(then: string): Promise<[LabProcess, number]> {
    const program = `
s = sock(); s.connect(('192.0.2.7', 80)); print(s.getsockname()[1], flush=True)
sys.stdin.readline(); ${then}; print('done', flush=True)
sys.stdin.readline()`;
    const child = pod.spawn(python(program));
    const [, port] = await child.waitForOutput(/(\d+)\n/);
    return [child, Number(port)];
  }

  test.each([
    ['RST', 's.setsockopt(1, 13, struct.pack("ii", 1, 0)); s.close()'],
    ['connect(AF_UNSPEC)', 'ctypes.CDLL(None).connect(s.fileno(), struct.pack("H14x", 0), 16)'],
  ])('what nobody has accepted goes with its client: %s', async (_, end) => {
    const [child, port] = await connected(end);
    expect(datapath.original(cookie, pod.ip, port)).toEqual({ address: '192.0.2.7', port: 80 });
    child.write('\n');
    await waitFor('the entry to go', () => datapath.original(cookie, pod.ip, port) === null);
    child.write('\n');
    await child.ended;
    expect(entries()).toEqual([]);
  });

  test.each([
    ['close', 's.close()'],
    ['the end of the process', 'os.kill(os.getpid(), 9)'],
  ])('what was sent in order waits for whoever accepts it: %s', async (_, end) => {
    const [child, port] = await connected(end);
    child.write('\n\n');
    await child.ended;
    const key = encodeOriginalKey(cookie, { address: pod.ip, port }, redirectedTo(port));
    expect(datapath.map('original_dst').take(key)).not.toBeNull();
    expect(datapath.map('original_dst').take(key)).toBeNull(); // good for one connection
    expect(entries()).toEqual([]);
  });

  test('what was accepted leaves no entry, also of a port that is used again', async () => {
    const once = (to: string) =>
      `s = sock(); s.bind(('${accepting.ip}', 40000)); s.connect((${to})); out(told(s)); s.setsockopt(1, 13, struct.pack("ii", 1, 0)); s.close()`;
    for (const to of ["'192.0.2.7', 80", "'192.0.2.8', 81"]) {
      expect(JSON.parse(await accepting.output(python(once(to))))).toMatchObject({
        remote: `${accepting.ip}:40000`,
        destination: to.replaceAll("'", '').replace(', ', ':'),
      });
      expect(entries()).toEqual([]);
    }
  });

  test('a connection to the listener that was not redirected has no entry', async () => {
    const program = python(`s = sock(); s.connect(('127.0.0.1', 15001)); out(told(s))`);
    expect(JSON.parse(await accepting.output(program))).toMatchObject({ destination: null });
  });

  test('a connect that fails leaves no entry', async () => {
    const program = python(`
s = sock(); s.connect(('192.0.2.7', 80)); s.setsockopt(1, 13, struct.pack("ii", 1, 0))
other = sock(); other.setsockopt(1, 15, 1); other.bind(('${accepting.ip}', 0))
out(attempt(('255.255.255.255', 80)))`);
    await accepting.output(program);
    await waitFor('all entries to go', () => entries().length === 0);
  });

  test('a full map refuses with EPERM, counted, and works again when there is room', async () => {
    const program = `
held = []
for i in range(${MAX_CONNECTIONS}):
    s = sock(); s.connect(('192.0.2.7', 80)); held.append(s)
refused = [attempt(('192.0.2.7', 80)), attempt(('2001:db8::1', 80), V6)]
for s in held: s.setsockopt(1, 13, struct.pack("ii", 1, 0))
for s in held[:2]: s.close()
time.sleep(.2)
out([refused, attempt(('192.0.2.7', 80))])`;
    const [result, rise] = await datapath.counted('refused_original_full', () => pod.output(python(program)));
    expect(JSON.parse(result)).toEqual([['EPERM', 'EPERM'], '']);
    expect(rise).toBe(2);
    await waitFor('all but the last, which closed in order, to go', () => entries().length === 1);
    for (const [key] of [...datapath.map('original_dst').entries()]) datapath.map('original_dst').delete(key);
  });

  test('entries of another namespace with the same address and port are others', () => {
    const map = datapath.map('original_dst');
    const key = encodeOriginalKey(cookie + 1n, { address: pod.ip, port: 1 }, 14336);
    map.update(
      key,
      Buffer.concat([encodeEndpoint({ address: '192.0.2.9', port: 9 }), encodeU32(0)]),
      'create',
    );
    expect(datapath.original(cookie, pod.ip, 1)).toBeNull();
    expect(datapath.original(cookie + 1n, pod.ip, 1)).toMatchObject({ port: 9 });
    expect(map.delete(key)).toBe(true);
  });

  test('many short connections leave nothing behind', async () => {
    const program = `
for i in range(500):
    s = sock(); s.connect(('192.0.2.7', 80)); s.setsockopt(1, 13, struct.pack("ii", 1, 0)); s.close()
out('ok')`;
    const [, rise] = await datapath.counted('refused_original_full', () => pod.output(python(program)));
    expect(rise).toBe(0);
    await waitFor('all entries to go', () => entries().length === 0);
  });
});
