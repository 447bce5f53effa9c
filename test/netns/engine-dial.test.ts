import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Bpf, encodeCaller, encodeDialKey, encodeEndpoint } from '../../native/bpf/index.js';
import { cgroupRoot } from '../../native/net/index.js';
import { packageRoot } from '../../native/package-root.js';
import { Recorder, TestReactor } from '../support/reactor.js';

/** A server that says who called; it runs in a network namespace of its own. */
const SERVER = `
const server = require('node:net').createServer((socket) => socket.on('error', () => {}).end(socket.remoteAddress));
server.listen(0, '::', () => console.log(server.address().port));
`;

let child: ChildProcess;
let port: number;
let netnsFd: number;

beforeAll(async () => {
  child = spawn(
    'unshare',
    ['--net', 'sh', '-c', 'ip link set lo up && exec "$0" -e "$1"', process.execPath, SERVER],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  port = Number(line.toString());
  netnsFd = openSync(`/proc/${child.pid}/ns/net`, 'r');
});

afterAll(() => {
  if (netnsFd !== undefined) closeSync(netnsFd);
  child.kill('SIGKILL');
});

test.each([
  ['127.0.0.1', '127.0.0.7', '::ffff:127.0.0.7'],
  ['127.0.0.1', undefined, '::ffff:127.0.0.1'],
  ['::1', '::1', '::1'],
])(
  'dials %s inside of a namespace from %s, and the thread stays in its own',
  async (address, fromAddress, seen) => {
    using t = new TestReactor();
    const own = readlinkSync('/proc/thread-self/ns/net');
    const recorder = new Recorder(t.reactor);
    const from = fromAddress === undefined ? {} : { fromAddress };
    t.reactor.connect({ to: { address, port }, netnsFd, connectTimeoutMs: 5000, ...from }, recorder);
    expect(readlinkSync('/proc/thread-self/ns/net')).toBe(own);
    await t.until(() => recorder.hasEnded);
    expect(recorder.received.toString()).toBe(seen);
  },
);

test('a descriptor that is no namespace, and a socket storage that is no map, fail the dial only', async () => {
  using t = new TestReactor();
  const dial = (options: object) => {
    const recorder = new Recorder(t.reactor);
    t.reactor.connect({ to: { address: '127.0.0.1', port }, connectTimeoutMs: 5000, ...options }, recorder);
    t.reactor.turn(0);
    return recorder.error;
  };
  const file = openSync('/dev/null', 'r');
  expect(dial({ netnsFd: file })).toMatchObject({ code: 'CONNECT_FAILED', data: { errno: 'EINVAL' } });
  const storage = { mapFd: file, value: Buffer.alloc(8) };
  expect(dial({ netnsFd, socketStorage: storage })).toMatchObject({ code: 'CONNECT_FAILED' });
  closeSync(file);
  expect(t.reactor.native.stats().connections).toBe(0);
});

test('a dial whose caller BPF does not record is ended: no program at our cgroup, or a full map', async () => {
  using t = new TestReactor();
  const bpf = new Bpf();
  using object = bpf.load(join(packageRoot(), 'bpf/build/sockops.bpf.o'), { maxEntries: { callers: 1 } });
  const value = encodeCaller({ address: '203.0.113.5', port: 55 });
  const socketStorage = { mapFd: object.map('caller_sk').fd, value };
  const dial = async () => {
    const recorder = new Recorder(t.reactor);
    const to = { address: '127.0.0.1', port };
    t.reactor.connect({ to, netnsFd, socketStorage, connectTimeoutMs: 5000 }, recorder);
    await t.until(() => recorder.hasEnded || recorder.error !== null);
    return recorder.error ?? recorder.received.toString();
  };
  const lost = { code: 'NO_RESOURCES', data: { errno: 'ENOBUFS' } };
  expect(await dial()).toMatchObject(lost);
  const cgroup = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))![1]!;
  using _link = bpf.attachCgroup(object.program('sock_ops'), join(cgroupRoot(), cgroup));
  expect(await dial()).toBe('::ffff:127.0.0.1');
  const other = encodeDialKey(1n, { address: '127.0.0.1', port: 1 }, { address: '127.0.0.1', port: 1 });
  object.map('callers').update(other, encodeEndpoint({ address: '127.0.0.1', port: 1 }));
  expect(await dial()).toMatchObject(lost);
});
