import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Bpf } from '../../native/bpf/index.js';
import { Lab, type LabNode, type LabPod, waitFor } from '../lab/index.js';
import { agentPod, ambient, CaptureAgent } from './capture-lab.js';

let lab: Lab;
let node: LabNode;
let client: LabPod;
let server: LabPod;
let agent: CaptureAgent;

beforeAll(async () => {
  lab = await Lab.create();
  node = await lab.node('a');
  lab.namespace('mesh', { labels: ambient });
  client = await node.pod('client', { namespace: 'mesh' });
  server = await node.pod('server', { namespace: 'mesh' });
  agent = await CaptureAgent.start(await agentPod(node), { quiet: true });
  await agent.waitForState(client, 'captured');
  await agent.waitForState(server, 'captured');
}, 60_000);
afterAll(() => lab?.close());

const originals = () => {
  using map = new Bpf().openPinnedMap(join(node.bpffsDir, 'abi-2/maps/original_dst'))!;
  return [...map.entries()].length;
};

test('what a client writes before it closes at once and goes arrives in full', async () => {
  const sink = server.spawn(['python3', '-c', sinkProgram, '9000', '300']);
  await sink.waitForOutput(/listening/);
  const write = `
import socket, sys
for i in range(300):
    s = socket.create_connection((sys.argv[1], 9000)); s.sendall(b'x' * 100); s.close()`;
  await client.output(['python3', '-c', write, server.ip]);
  const { stdout } = await sink.ended;
  expect(stdout).toContain('300 connections, 30000 bytes, 0 errors');
  await waitFor('all entries to go', () => originals() === 0);
}, 60_000);

// Each destination has the pod's ephemeral ports for itself, as without the mesh: 100 of them here, and 500 connections.
test('connections to several destinations do not share one set of ports', async () => {
  const narrow = await node.pod('narrow', { namespace: 'mesh' });
  await agent.waitForState(narrow, 'captured');
  await narrow.output(['sysctl', '-qw', 'net.ipv4.ip_local_port_range=40000 40099']);
  const held = server.spawn(['python3', '-c', holdProgram, '9101', '5']);
  await held.waitForOutput(/listening/);
  const open = `
import socket, sys
held = []
for port in range(9101, 9106):
    for i in range(100):
        s = socket.create_connection((sys.argv[1], port), 10); assert s.recv(2) == b'up'; held.append(s)
print(len(held))`;
  expect(await narrow.output(['python3', '-c', open, server.ip], { timeoutMs: 60_000 })).toBe('500\n');
  const { refusals } = await agent.status();
  expect(refusals['refused_original_full']).toBe(0);
}, 90_000);

// Two clients: one address has 28,232 ephemeral ports towards one listener, and a client that closes first cannot use one again for a
// minute; without the mesh as with it.
test('50,000 short connections to one pod and port, the clients closing first: none fails', async () => {
  const other = await node.pod('other', { namespace: 'mesh' });
  await agent.waitForState(other, 'captured');
  const count = 25_000;
  const echo = server.spawn([process.execPath, '-e', echoProgram, '9001']);
  await echo.waitForOutput(/listening/);
  const load = (pod: LabPod) =>
    pod.exec([process.execPath, '-e', shortConnections, server.ip, '9001', String(count)], {
      timeoutMs: 280_000,
    });
  for (const { stdout } of await Promise.all([load(client), load(other)])) {
    expect(stdout).toBe(`${count} answered, 0 failed\n`);
  }
  echo.write('report\n');
  const [, callers, pairs] = await echo.waitForOutput(/(\d+) addresses, (\d+) doubly shown/);
  expect([callers, pairs]).toEqual(['2', '0']); // the clients' own addresses, and never one port for two live connections
  const { refusals } = await agent.status();
  expect(Object.entries(refusals).filter(([, value]) => value !== 0)).toEqual([]);
  await waitFor('all entries to go', () => originals() === 0);
}, 300_000);

/** Accepts on several ports in a row, says "up", and keeps everything. */
const holdProgram = `
import selectors, socket, sys
poller = selectors.DefaultSelector(); kept = []
for port in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
    poller.register(socket.create_server(('', port), backlog=1024), selectors.EVENT_READ)
print('listening', flush=True)
while True:
    for key, _ in poller.select():
        c, _ = key.fileobj.accept(); c.sendall(b'up'); kept.append(c)
`;

const sinkProgram = `
import socket, sys, threading
s = socket.create_server(('', int(sys.argv[1])), backlog=1024); s.settimeout(30); print('listening', flush=True)
n = b = errors = 0
while n + errors < int(sys.argv[2]):
    try: c, _ = s.accept()
    except socket.timeout: break
    c.settimeout(10)
    try:
        while True:
            d = c.recv(65536)
            if not d: break
            b += len(d)
        n += 1
    except OSError: errors += 1
    c.close()
print(f'{n} connections, {b} bytes, {errors} errors')
`;

const echoProgram = `
const live = new Map(), addresses = new Set(); let doubly = 0;
require('net').createServer({ allowHalfOpen: true }, (c) => {
  const peer = c.remoteAddress + ' ' + c.remotePort;
  addresses.add(c.remoteAddress);
  if (live.has(peer)) doubly++;
  live.set(peer, c);
  c.on('close', () => { if (live.get(peer) === c) live.delete(peer); });
  c.on('error', () => {});
  c.pipe(c);
}).listen({ port: Number(process.argv[1]), host: '0.0.0.0', backlog: 4096 }, () => console.log('listening'));
process.stdin.on('data', () => console.log(addresses.size + ' addresses, ' + doubly + ' doubly shown'));
`;

const shortConnections = `
const net = require('net'); const [host, port, count] = process.argv.slice(1);
let started = 0, answered = 0, failed = 0;
function next() {
  if (started === Number(count)) { if (answered + failed === started) { console.log(answered + ' answered, ' + failed + ' failed'); process.exit(0); } return; }
  started++;
  let ok = false;
  const s = net.connect({ host, port: Number(port) }, () => s.write('ping'));
  s.on('data', () => { ok = true; s.end(); });
  s.on('error', () => {});
  s.on('close', () => { ok ? answered++ : failed++; next(); });
}
for (let i = 0; i < 32; i++) next();
`;
