import { execFileSync } from 'node:child_process';
import { rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clean } from '../../agent/capture/index.js';
import { Bpf } from '../../native/bpf/index.js';
import { Lab, type LabNode, type LabPod, waitFor } from '../lab/index.js';
import { execIn } from '../lab/process.js';
import {
  agentPod,
  ambient,
  CaptureAgent,
  echoProgram,
  programsAt,
  request,
  startEcho,
} from './capture-lab.js';

const namedKubelet = [
  'python3',
  '-c',
  "import ctypes, time; ctypes.CDLL(None).prctl(15, b'kubelet', 0, 0, 0); print('up', flush=True); time.sleep(600)",
];

function tryRemove(cgroup: string): boolean {
  try {
    rmdirSync(cgroup);
    return true;
  } catch {
    return false;
  }
}

/** What goes past the mesh, and what does not: probes, exclusions, older connections. The agent relays everything that comes to it. */
let lab: Lab;
let node: LabNode;
let pod: LabPod;
let outside: LabPod;
let agentPlace: LabPod;
let agent: CaptureAgent;

const probe = (who: 'kubelet' | 'exec', port = 8080) =>
  node[who](['curl', '-sS', '-m', '5', `http://${pod.ip}:${port}/`]);

beforeAll(async () => {
  lab = await Lab.create();
  node = await lab.node('a');
  lab.namespace('mesh', { labels: ambient });
  outside = await node.pod('outside');
  agentPlace = await agentPod(node);
}, 60_000);
afterAll(() => lab?.close());

describe('at first attach', () => {
  let held: ReturnType<LabPod['spawn']>;
  let inside: ReturnType<LabPod['spawn']>;
  let listener: ReturnType<LabPod['spawn']>;

  beforeAll(async () => {
    pod = await node.pod('pod', { namespace: 'mesh' });
    await startEcho(outside);
    listener = await startEcho(pod);
  }, 60_000);

  const open = async (from: LabPod, to: string) => {
    const program = `
import socket, sys
s = socket.create_connection(('${to}', 8080)); print('open', flush=True)
try: print('end:' + repr(s.recv(10)), flush=True)
except OSError as e: print('end:' + str(e.errno), flush=True)`;
    const child = from.spawn(['python3', '-c', program]);
    await child.waitForOutput(/open/);
    return child;
  };

  test('older connections of an enrolled pod end, both ways; listeners and loopback stay', async () => {
    held = await open(pod, outside.ip);
    const inbound = await open(outside, pod.ip);
    inside = await open(pod, '127.0.0.1');
    agent = await CaptureAgent.start(agentPlace);
    await agent.waitForState(pod, 'captured');
    for (const child of [held, inbound]) await child.waitForOutput(/end:10[34]/); // ECONNABORTED here, ECONNRESET there
    expect(inside.stdout).toBe('open\n');
    expect(listener.running).toBe(true);
    expect((await request(outside, pod))?.peer.address).toBe(outside.ip);
  }, 60_000);

  test('an agent that adopts the hooks ends nothing; one that is told to keeps older ones', async () => {
    await agent.kill();
    agent = await CaptureAgent.start(agentPlace);
    await agent.waitForState(pod, 'captured');
    expect(inside.stdout).toBe('open\n');
    await agent.kill();
    expect(clean({ bpffsDir: node.bpffsDir, force: true })).toBeGreaterThan(0);
    const kept = await open(pod, outside.ip);
    agent = await CaptureAgent.start(agentPlace, { keepOlderConnections: true });
    await agent.waitForState(pod, 'captured');
    await waitFor('a new connection through us', async () => (await request(pod, outside)) !== null);
    expect(kept.stdout).toBe('open\n');
  }, 60_000);
});

describe('connections from the node', () => {
  const inboundTold = () => agent.events('inbound').length;

  test('of kubelet reach the application itself, of others the agent', async () => {
    const before = inboundTold();
    const probed = await probe('kubelet');
    expect(JSON.parse(probed.stdout)).toMatchObject({ peer: { address: '10.244.1.1' } });
    expect(inboundTold()).toBe(before);
    expect((await agent.status()).refusals['passed_probe']).toBe(1);
    expect((await probe('exec')).code).toBe(0); // this agent lets everything in: policy is not its business
    await waitFor('the agent to have it', () => inboundTold() === before + 1);
  });

  test('a dead application fails its probe; a ticket ends with its connection', async () => {
    const before = inboundTold();
    expect((await probe('kubelet', 8099)).stderr).toMatch(/refused|Could not connect|Failed to connect/);
    expect(inboundTold()).toBe(before);
    await waitFor('tickets to go', async () => {
      const { maps } = await agent.status();
      return maps.find(({ name }) => name === 'tickets')?.entries === 0;
    });
  });

  test('a host-network pod is not kubelet', async () => {
    const before = inboundTold();
    const host = await node.pod('host', { hostNetwork: true });
    await agent.waitForState(host, 'plain');
    await host.exec(['curl', '-sS', '-m', '5', `http://${pod.ip}:8080/`]);
    await waitFor('the agent to have it', () => inboundTold() === before + 1);
  });

  test('IPv6 probes, and probes while no agent runs', async () => {
    const v6 = () => node.kubelet(['curl', '-sS', '-m', '5', `http://[${pod.ip6}]:8080/`]);
    expect((await v6()).code).toBe(0);
    await agent.kill();
    for (const result of [await v6(), await probe('kubelet')]) expect(result.code).toBe(0);
    expect((await probe('exec')).code).not.toBe(0);
    agent = await CaptureAgent.start(agentPlace);
    await agent.waitForState(pod, 'captured');
  }, 60_000);

  test('kubelet is found by its process, and followed when its cgroup is another', async () => {
    await agent.stop();
    // Named so, but not kubelet: in a pod, in another namespace, of another user.
    const inHostPod = await node.pod('pretender', { hostNetwork: true });
    inHostPod.spawn(namedKubelet);
    outside.spawn(namedKubelet);
    node.spawn(['setpriv', '--reuid', '65534', '--clear-groups', ...namedKubelet], { service: 'guest' });
    const waiting = CaptureAgent.launch(agentPlace, { kubeletCgroup: null });
    expect((await waiting.status()).trouble).toMatch(/no process named kubelet/);
    const kubelet = async () => {
      const child = node.spawn(namedKubelet, { service: 'found-kubelet' });
      await child.waitForOutput(/up/);
      return child;
    };
    const { cgroup, netns } = node.hostPlace('found-kubelet');
    const first = await kubelet();
    await waiting.process.waitForOutput(/"event":"ready"/);
    agent = waiting;
    await agent.waitForState(pod, 'captured');
    const passed = async () => (await agent.status()).refusals['passed_probe']!;
    const probeFrom = () => execIn({ cgroup, netns }, ['curl', '-sS', '-m', '5', `http://${pod.ip}:8080/`]);
    const before = await passed();
    expect((await probeFrom()).code).toBe(0);
    expect(await passed()).toBe(before + 1);
    // systemd takes the cgroup away with its last process, and makes it anew.
    await first.stop('SIGKILL');
    await waitFor('the cgroup to go', () => tryRemove(cgroup));
    await waitFor('the agent to tell', async () => /kubelet/.test((await agent.status()).trouble));
    node.hostPlace('found-kubelet');
    await kubelet();
    await waitFor('the agent to follow', async () => (await agent.status()).trouble === '');
    expect((await probeFrom()).code).toBe(0);
    expect(await passed()).toBe(before + 2);
    await agent.stop();
    agent = await CaptureAgent.start(agentPlace);
    await agent.waitForState(pod, 'captured');
  }, 60_000);

  test('where kubelet is not found nothing is attached until it is', async () => {
    await agent.stop();
    clean({ bpffsDir: node.bpffsDir });
    const cgroup = join(node.cgroup, 'system.slice/other-kubelet.service');
    const waiting = CaptureAgent.launch(agentPlace, { kubeletCgroup: cgroup });
    const status = await waiting.status();
    expect(status.trouble).toMatch(/kubelet/);
    expect(status.links).toEqual([]);
    node.hostPlace('other-kubelet');
    await waiting.process.waitForOutput(/"event":"ready"/);
    await waiting.stop();
    agent = await CaptureAgent.start(agentPlace);
    await agent.waitForState(pod, 'captured');
  }, 60_000);
});

describe('exclusions', () => {
  const prefix = 'traffic.sidecar.istio.io';
  const told = (kind: string, name: string) =>
    agent.events(kind).filter((event) => event.pod === name).length;

  test.each([
    ['a port', { [`${prefix}/excludeOutboundPorts`]: '8080' }, 0],
    ['another port', { [`${prefix}/excludeOutboundPorts`]: '8081, 9000' }, 1],
    ['a range', { [`${prefix}/excludeOutboundIPRanges`]: '10.244.0.0/16' }, 0],
    ['another range', { [`${prefix}/excludeOutboundIPRanges`]: '10.245.0.0/16,fd00::/8' }, 1],
  ])('outbound: %s', async (name, annotations, redirected) => {
    const client = await node.pod(`client-${name.replace(' ', '-')}`, { namespace: 'mesh', annotations });
    await agent.waitForState(client, 'captured');
    expect((await request(client, outside))?.peer.address).toBe(client.ip);
    expect(told('outbound', client.name)).toBe(redirected);
    await client.delete();
  });

  test.each([
    ['a port', { [`${prefix}/excludeInboundPorts`]: '8080' }, 0],
    ['another port', { [`${prefix}/excludeInboundPorts`]: '8081' }, 1],
    ['all of it', { 'ambient.istio.io/bypass-inbound-capture': 'true' }, 0],
  ])('inbound: %s', async (name, annotations, steered) => {
    const server = await node.pod(`server-${name.replaceAll(' ', '-')}`, { namespace: 'mesh', annotations });
    await agent.waitForState(server, 'captured');
    await startEcho(server);
    expect((await request(outside, server))?.peer.address).toBe(outside.ip);
    expect(told('inbound', server.name)).toBe(steered);
    await server.delete();
  });

  test('an annotation that cannot be followed: refused with the reason, its connections too', async () => {
    const annotations = { [`${prefix}/excludeOutboundPorts`]: '80-90' };
    const bad = await node.pod('bad', { namespace: 'mesh', annotations });
    await agent.waitForState(bad, 'refused');
    const { reason } = (await agent.status()).pods.find(({ uid }) => uid === bad.uid)!;
    expect(reason).toMatch(/INVALID_POD.*excludeOutboundPorts.*80-90/);
    expect(await request(bad, outside, { seconds: 3 })).toBeNull();
    const server = bad.spawn([process.execPath, echoProgram, '8080']);
    await server.waitForOutput(/listening/);
    expect(await request(outside, bad, { seconds: 2 })).toBeNull();
    await bad.delete();
    await waitFor('its exclusions to go', async () => {
      const { maps } = await agent.status();
      return maps.find(({ name }) => name === 'excluded_ports')?.entries === 0;
    });
  });
});

test('a node is freed by hand, as docs/operations.md has it', async () => {
  await agent.kill();
  expect(await request(outside, pod, { seconds: 2 })).toBeNull();
  const folder = node.bpffsDir;
  execFileSync('sh', [
    '-c',
    `find ${folder} -type f -path '*/links/connect*' -delete; rm -r ${folder}/abi-*; umount ${folder}`,
  ]);
  await waitFor('the pod to be plain', async () => (await request(outside, pod, { seconds: 2 })) !== null);
  expect((await request(pod, outside))?.peer.address).toBe(pod.ip);
  expect(programsAt(new Bpf(), node.kubepods)).toEqual({});
}, 60_000);
