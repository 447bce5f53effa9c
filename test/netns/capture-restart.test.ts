import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmdirSync, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { clean } from '../../agent/capture/index.js';
import { Bpf, cgroupKind } from '../../native/bpf/index.js';
import { Net } from '../../native/net/index.js';
import { Lab, type LabNode, type LabPod, waitFor } from '../lab/index.js';
import {
  agentPod,
  ambient,
  CaptureAgent,
  onePerHook,
  plain,
  programsAt,
  request,
  skLookup,
  startEcho,
} from './capture-lab.js';

const bpf = new Bpf();
let lab: Lab;
let node: LabNode;
let home: LabPod;

beforeEach(async () => {
  lab = await Lab.create();
  node = await lab.node('a');
  lab.namespace('mesh', { labels: ambient });
  home = await agentPod(node);
}, 60_000);
afterEach(() => lab?.close());

const pins = () => join(node.bpffsDir, 'abi-2');
const openMap = (name: string) => bpf.openPinnedMap(join(pins(), 'maps', name))!;
const inboundPrograms = (pod: LabPod) => {
  using netns = new Net().openNetns(`/run/netns/${pod.netns}`);
  return bpf.attached(netns.fd, skLookup).filter(({ name }) => name === 'inbound');
};
const cgroupEntries = () => {
  using map = openMap('pod_cgroups');
  return [...map.entries()].map(([key, value]) => [key.readBigUInt64LE(), value.readUInt32LE()] as const);
};
const idOf = (pod: LabPod) => statSync(pod.cgroup, { bigint: true }).ino;

test('any number of restarts: each adopts what it finds, one of ours per hook', async () => {
  const [client, server] = await twoPods();
  let mapId = 0;
  const tags = new Set<string>();
  for (let round = 0; round < 5; round++) {
    const agent = await CaptureAgent.start(home);
    expect(programsAt(bpf, node.kubepods)).toEqual(onePerHook);
    expect(inboundPrograms(client)).toHaveLength(1);
    tags.add(String(inboundPrograms(client)[0]!.id));
    using map = openMap('original_dst');
    if (round > 0) expect(map.info.id).toBe(mapId);
    mapId = map.info.id;
    expect(await request(client, server)).not.toBeNull();
    expect(agent.events('outbound')).toHaveLength(1);
    expect(agent.events('inbound')).toHaveLength(1);
    if (round % 2 === 0) await agent.stop();
    else await agent.kill();
  }
  expect(tags.size).toBe(5); // a new instance each time, in the place of the old one
}, 60_000);

test('no agent (kill -9): enrolled and new pods are refused, plain ones served; the next agent mends it', async () => {
  const [client, server] = await twoPods();
  const outside = await node.pod('outside');
  await startEcho(outside);
  const agent = await CaptureAgent.start(home);
  expect(await request(client, outside)).not.toBeNull();
  await agent.kill();
  expect(await request(client, outside, { seconds: 2 })).toBeNull();
  expect(await request(outside, server, { seconds: 2 })).toBeNull();
  expect(await request(outside, outside)).not.toBeNull();
  const born = await node.pod('born', { namespace: 'mesh' });
  expect(await request(born, outside, { seconds: 2 })).toBeNull();
  const next = await CaptureAgent.start(home);
  expect(await request(outside, server)).not.toBeNull();
  expect(await request(born, outside)).not.toBeNull();
  expect(await request(client, server)).not.toBeNull();
  expect(
    next
      .events('outbound')
      .map(({ pod }) => pod)
      .sort(),
  ).toEqual(['born', 'client']);
}, 60_000);

test('what changed while no agent ran: a pod gone, one no more enrolled, one enrolled, an agent gone', async () => {
  const [client, server] = await twoPods();
  const gone = await node.pod('gone', { namespace: 'mesh' });
  const later = await node.pod('later');
  const agent = await CaptureAgent.start(home);
  const goneId = idOf(gone);
  expect(cgroupEntries()).toContainEqual([goneId, cgroupKind.captured]);
  await agent.kill();
  await gone.delete();
  client.relabel(plain);
  later.relabel(ambient);
  const newHome = await agentPod(node, 'agent2');
  const oldHomeId = idOf(home);
  await home.delete();
  const next = await CaptureAgent.start(newHome);
  await waitFor('the sweep', () => readdirSync(join(pins(), 'pods')).length === 2);
  expect(readdirSync(join(pins(), 'pods')).sort()).toEqual([server.uid, later.uid].sort());
  expect(inboundPrograms(client)).toHaveLength(0);
  const entries = cgroupEntries();
  expect(entries.map(([id]) => id)).not.toContain(goneId);
  expect(entries.map(([id]) => id)).not.toContain(oldHomeId);
  expect(entries).toContainEqual([idOf(newHome), cgroupKind.agent]);
  expect(entries).toContainEqual([idOf(client), cgroupKind.plain]);
  expect(entries).toContainEqual([idOf(later), cgroupKind.captured]);
  using captured = openMap('captured');
  expect([...captured.entries()]).toHaveLength(2);
  expect(await request(client, server)).not.toBeNull();
  expect(next.events('outbound')).toEqual([]);
}, 60_000);

test('two agents side by side: both listed, the first may go', async () => {
  const [client, server] = await twoPods();
  const first = await CaptureAgent.start(home);
  const second = await CaptureAgent.start(await agentPod(node, 'agent2'));
  expect(programsAt(bpf, node.kubepods)).toEqual(onePerHook);
  expect(cgroupEntries().filter(([, kind]) => kind === cgroupKind.agent)).toHaveLength(2);
  for (let i = 0; i < 5; i++) expect(await request(client, server)).not.toBeNull();
  await first.stop();
  for (let i = 0; i < 5; i++) expect(await request(client, server)).not.toBeNull();
  expect(second.events('inbound').length).toBeGreaterThanOrEqual(5);
  await home.delete();
  await waitFor(
    'the first agent to be forgotten',
    () => cgroupEntries().filter(([, kind]) => kind === cgroupKind.agent).length === 1,
  );
}, 60_000);

test('an agent that has no descriptor left takes no pod for gone', async () => {
  const [client, server] = await twoPods();
  const agent = await CaptureAgent.start(home);
  const limit = (descriptors: number) =>
    execFileSync('prlimit', ['--pid', String(agent.process.pid), `--nofile=${descriptors}:`]);
  const captured = async () => (await agent.status()).pods.filter(({ state }) => state === 'captured').length;
  const before = await captured();
  limit(8);
  await waitFor('the agent to tell', () => agent.process.stderr.includes('pods count as they were'));
  await sleep(2_500); // more than the poll and emptyPodLingerMs together
  expect(agent.events('released')).toEqual([]);
  expect(await captured()).toBe(before);
  limit(1024);
  expect(await request(client, server)).not.toBeNull();
}, 60_000);

test('links whose cgroup is gone are replaced; the agent may run outside of all pods', async () => {
  await home.delete();
  await (await CaptureAgent.start(node)).kill();
  const removeAll = (path: string): void => {
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory()) removeAll(join(path, entry.name));
    rmdirSync(path);
  };
  removeAll(node.kubepods);
  mkdirSync(node.kubepods);
  expect(programsAt(bpf, node.kubepods)).toEqual({});
  const agent = await CaptureAgent.start(node);
  expect(programsAt(bpf, node.kubepods)).toEqual(onePerHook);
  const [client, server] = await twoPods();
  await agent.waitForState(server, 'captured');
  await agent.waitForState(client, 'captured');
  // sock_ops at the agent's own cgroup: without it the application would see 127.x.
  expect((await request(client, server))?.peer.address).toBe(client.ip);
  expect(agent.events('inbound')).toHaveLength(1);
}, 60_000);

test('an agent in a cgroup namespace of its own knows its pod', async () => {
  const [client, server] = await twoPods();
  const agent = await CaptureAgent.start(home, { ownCgroupNamespace: true });
  expect(cgroupEntries()).toContainEqual([idOf(home), cgroupKind.agent]);
  expect(await request(client, server)).not.toBeNull();
  expect([agent.events('outbound').length, agent.events('inbound').length]).toEqual([1, 1]);
}, 60_000);

test('pins of a newer ABI, and maps of another shape, are refused and left as they are', async () => {
  const [client, server] = await twoPods();
  await (await CaptureAgent.start(home)).stop();
  const programs = programsAt(bpf, node.kubepods);
  mkdirSync(join(node.bpffsDir, 'abi-99'));
  await expect(CaptureAgent.start(home)).rejects.toMatchObject({ code: 'ABI_MISMATCH' });
  rmdirSync(join(node.bpffsDir, 'abi-99'));
  using map = openMap('captured');
  using other = openMap('pod_cgroups');
  unlinkSync(join(pins(), 'maps/captured'));
  other.pin(join(pins(), 'maps/captured'));
  await expect(CaptureAgent.start(home)).rejects.toMatchObject({ code: 'ABI_MISMATCH' });
  expect(programsAt(bpf, node.kubepods)).toEqual(programs);
  unlinkSync(join(pins(), 'maps/captured'));
  map.pin(join(pins(), 'maps/captured'));
  const agent = await CaptureAgent.start(home);
  expect(await request(client, server)).not.toBeNull();
  expect(agent.events('outbound')).toHaveLength(1);
}, 60_000);

test('an older ABI: refused beside its live agent; then its hooks are taken over, and nothing is plain meanwhile', async () => {
  const [client, server] = await twoPods();
  const gone = await node.pod('gone', { namespace: 'mesh' });
  const old = await CaptureAgent.start(home);
  await old.waitForState(gone, 'captured');
  const asOld = () => renameSync(pins(), join(node.bpffsDir, 'abi-1'));
  asOld();
  await expect(CaptureAgent.start(home)).rejects.toMatchObject({ code: 'AGENT_ALIVE' });
  await old.kill();
  await gone.delete();
  expect(await request(client, server, { seconds: 2 })).toBeNull();
  const agent = CaptureAgent.launch(home);
  let served = 0;
  while (agent.events('ready').length === 0) {
    if ((await request(client, server, { seconds: 2 })) !== null) served++;
  }
  expect(agent.events('outbound').length).toBeGreaterThanOrEqual(served);
  expect(await request(client, server)).not.toBeNull();
  expect(agent.events('outbound').length).toBe(served + 1);
  expect(agent.events('inbound').length).toBe(served + 1);
  expect(programsAt(bpf, node.kubepods)).toEqual(onePerHook);
  expect(inboundPrograms(client)).toHaveLength(1);
  expect(existsSync(join(node.bpffsDir, 'abi-1'))).toBe(false);
}, 60_000);

test('clean leaves nothing, and pods are as without the mesh', async () => {
  const [client, server] = await twoPods();
  const before = { program: bpf.ids('program'), map: bpf.ids('map'), link: bpf.ids('link') };
  const agent = await CaptureAgent.start(home);
  const ours = ourIds(client, server);
  for (const kind of ['program', 'map', 'link'] as const) {
    expect(ours[kind].length).toBeGreaterThan(0);
    for (const id of ours[kind]) expect(before[kind].has(id)).toBe(false);
  }
  expect(() => clean({ bpffsDir: node.bpffsDir })).toThrow(expect.objectContaining({ code: 'AGENT_ALIVE' }));
  expect(programsAt(bpf, node.kubepods)).toEqual(onePerHook);
  await agent.kill();
  expect(clean({ bpffsDir: node.bpffsDir })).toBe(13);
  expect(existsSync(node.bpffsDir)).toBe(false);
  await waitFor('all to be freed', () =>
    (['program', 'map', 'link'] as const).every((kind) => ours[kind].every((id) => !bpf.ids(kind).has(id))),
  );
  expect(programsAt(bpf, node.kubepods)).toEqual({});
  expect(inboundPrograms(server)).toEqual([]);
  expect((await request(client, server))?.peer.address).toBe(client.ip);
  expect(clean({ bpffsDir: node.bpffsDir })).toBe(0);
  await CaptureAgent.start(home);
  expect(programsAt(bpf, node.kubepods)).toEqual(onePerHook);
}, 60_000);

test('1,000 times enrolled and released: no descriptor, map entry or pin stays', async () => {
  const agent = await CaptureAgent.start(home, { unenrolGraceMs: 0, quiet: true });
  const pods: LabPod[] = [];
  for (let i = 0; i < 20; i++) pods.push(await node.pod(`p${i}`));
  const told = (event: string, count: number) =>
    waitFor(`${count} pods ${event}`, () => agent.events(event).length === count, { timeoutMs: 30_000 });
  const descriptors = () => readdirSync(`/proc/${agent.process.pid}/fd`).length;
  for (const pod of pods) await agent.waitForState(pod, 'plain');
  const baseline = descriptors();
  for (let round = 1; round <= 50; round++) {
    for (const pod of pods) pod.relabel(ambient);
    await told('captured', pods.length * round);
    for (const pod of pods) pod.relabel({});
    await told('released', pods.length * round);
  }
  expect(readdirSync(join(pins(), 'pods'))).toEqual([]);
  using captured = openMap('captured');
  expect([...captured.entries()]).toEqual([]);
  await waitFor('descriptors to be closed', () => descriptors() <= baseline);
  expect(cgroupEntries()).toHaveLength(21);
  using originals = openMap('original_dst');
  expect([...originals.entries()]).toEqual([]);
  for (const pod of pods.splice(0)) await pod.delete();
  await waitFor('the pods to be forgotten', () => cgroupEntries().length === 1);
}, 180_000);

async function twoPods(): Promise<[LabPod, LabPod]> {
  const client = await node.pod('client', { namespace: 'mesh' });
  const server = await node.pod('server', { namespace: 'mesh' });
  await startEcho(server);
  return [client, server];
}

/** Kernel ids of all that is pinned. */
function ourIds(...pods: LabPod[]): { program: number[]; map: number[]; link: number[] } {
  const links = [
    ...readdirSync(join(pins(), 'links')).map((name) => join(pins(), 'links', name)),
    ...pods.map(({ uid }) => join(pins(), 'pods', uid, 'link')),
  ].map((path) => {
    using link = bpf.openPinnedLink(path)!;
    return link.info();
  });
  const maps = [
    ...readdirSync(join(pins(), 'maps')).map((name) => join(pins(), 'maps', name)),
    ...pods.map(({ uid }) => join(pins(), 'pods', uid, 'listeners')),
  ].map((path) => {
    using map = bpf.openPinnedMap(path)!;
    return map.info.id;
  });
  return { program: links.map(({ programId }) => programId), map: maps, link: links.map(({ id }) => id) };
}
