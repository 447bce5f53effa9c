import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  decodeOriginalKey,
  encodeEndpoint,
  encodeOriginalKey,
  encodeU32,
  markOriginalRead,
} from '../../native/bpf/index.js';
import { Lab, type LabPod, type LabProcess, waitFor } from '../lab/index.js';
import { Datapath } from './support/datapath.js';
import { python } from './support/python.js';

const MAX_CONNECTIONS = 8;

/** The hash of original destinations: what is in it when, and what happens when it is full. */
describe('original destinations', () => {
  let lab: Lab;
  let datapath: Datapath;
  let pod: LabPod;
  let cookie: bigint;

  beforeAll(async () => {
    lab = await Lab.create();
    const node = await lab.node('a');
    pod = await node.pod('pod');
    datapath = new Datapath(node, { maxEntries: { original_dst: MAX_CONNECTIONS } });
    cookie = datapath.captureOutbound(pod);
    datapath.attach();
  }, 60_000);

  afterAll(() => {
    datapath?.close();
    lab?.close();
  });

  const entries = () => [...datapath.map('original_dst').entries()].map(([key]) => decodeOriginalKey(key));

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
    ['close, the client first', 's.close()'],
    ['close after the listener closed', 'read(s); s.close()'],
    ['RST', 's.setsockopt(1, 13, struct.pack("ii", 1, 0)); s.close()'],
    ['connect(AF_UNSPEC)', 'ctypes.CDLL(None).connect(s.fileno(), struct.pack("H14x", 0), 16)'],
    ['the end of the process', 'os.kill(os.getpid(), 9)'],
  ])('an entry lives as long as its client socket: %s', async (_, end) => {
    const [child, port] = await connected(end);
    expect(datapath.original(cookie, pod.ip, port)).toEqual({
      destination: { address: '192.0.2.7', port: 80 },
      isRead: false,
      isClosed: false,
    });
    child.write('\n');
    await waitFor('the entry to go', () => datapath.original(cookie, pod.ip, port) === null);
    child.write('\n');
    await child.ended;
    expect(entries()).toEqual([]);
  });

  test('an entry marked read stays read, and a new connection from the same port is unread again', async () => {
    const [child, port] = await connected('s.setsockopt(1, 13, struct.pack("ii", 1, 0)); s.close()');
    const key = encodeOriginalKey(cookie, { address: pod.ip, port });
    const map = datapath.map('original_dst');
    const value = map.lookup(key)!;
    markOriginalRead(value);
    expect(map.update(key, value, 'replace')).toBe(true);
    expect(datapath.original(cookie, pod.ip, port)?.isRead).toBe(true);
    child.write('\n\n');
    await child.ended;
    expect(map.update(key, value, 'replace')).toBe(false);
    const again = `s = sock(); s.bind(('${pod.ip}', ${port})); s.connect(('192.0.2.8', 81)); out(told(s))`;
    expect(JSON.parse(await pod.output(python(again)))).toMatchObject({
      remote: `${pod.ip}:${port}`,
      destination: '192.0.2.8:81',
      isRead: false,
    });
  });

  test('a connection to the listener that was not redirected has no entry', async () => {
    const program = python(`s = sock(); s.connect(('127.0.0.1', 15001)); out(told(s))`);
    expect(JSON.parse(await pod.output(program))).toMatchObject({ destination: null, isRead: null });
  });

  test('a connect that fails leaves no entry', async () => {
    const program = python(`
s = sock(); s.connect(('192.0.2.7', 80))
other = sock(); other.setsockopt(1, 15, 1); other.bind(('${pod.ip}', 0))
out(attempt(('255.255.255.255', 80)))`);
    await pod.output(program);
    await waitFor('all entries to go', () => entries().length === 0);
  });

  test('a full map refuses with EPERM, counted, and works again when there is room', async () => {
    const program = `
held = []
for i in range(${MAX_CONNECTIONS}):
    s = sock(); s.connect(('192.0.2.7', 80)); held.append(s)
refused = [attempt(('192.0.2.7', 80)), attempt(('2001:db8::1', 80), V6)]
for s in held[:2]: s.close()
time.sleep(.2)
out([refused, attempt(('192.0.2.7', 80))])`;
    const [result, rise] = await datapath.counted('refused_original_full', () => pod.output(python(program)));
    expect(JSON.parse(result)).toEqual([['EPERM', 'EPERM'], '']);
    expect(rise).toBe(2);
    await waitFor('all entries to go', () => entries().length === 0);
  });

  test('entries of another namespace with the same address and port are others', () => {
    const map = datapath.map('original_dst');
    const key = encodeOriginalKey(cookie + 1n, { address: pod.ip, port: 1 });
    map.update(
      key,
      Buffer.concat([encodeEndpoint({ address: '192.0.2.9', port: 9 }), encodeU32(0)]),
      'create',
    );
    expect(datapath.original(cookie, pod.ip, 1)).toBeNull();
    expect(datapath.original(cookie + 1n, pod.ip, 1)).toMatchObject({ destination: { port: 9 } });
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
