import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect } from '@jest/globals';
import { abiVersion, Bpf } from '../../native/bpf/index.js';
import { findCgroup2, type LabNode, type LabPod, type MeshAgent, waitFor } from '../lab/index.js';

// Means of the tests of faults: what an agent holds, and ways to harm it.

/** What one agent holds, in numbers that must be the same again after a fault. */
export interface Footprint {
  readonly descriptors: number;
  /** Connections and tunnels of its workers, those that wait, and entries of the maps that follow single connections. */
  readonly live: Readonly<Record<string, number>>;
}

/** Pooled connections to other nodes end 5 minutes after their last tunnel: their descriptors are no leak. */
export async function footprintOf(agent: MeshAgent): Promise<Footprint> {
  const { workers } = await agent.config();
  const pooled = sum(workers.map((worker) => worker!.hbone['connections']!));
  return {
    descriptors: descriptorsOf(agent) - pooled,
    live: {
      tunnels: sum(workers.map((worker) => worker!.hbone['tunnels']!)),
      waitingTunnels: sum(workers.map((worker) => worker!.hbone['waitingTunnels']!)),
      open: sum(workers.map((worker) => worker!.tunnel['open']!)),
      waiting: sum(workers.map((worker) => worker!.tunnel['waiting']!)),
      originals: entriesOf(agent.node, 'original_dst'),
      callers: entriesOf(agent.node, 'callers'),
    },
  };
}

/** The same, once the agent has made what it keeps in store: the programs loaded ahead of pods, one now and then. */
export async function restingFootprintOf(agent: MeshAgent): Promise<Footprint> {
  let most = 0;
  let risenAt = performance.now();
  const rests = () => {
    const now = descriptorsOf(agent);
    if (now > most) [most, risenAt] = [now, performance.now()];
    return performance.now() - risenAt > 3_000;
  };
  await waitFor('no more descriptors', rests, { timeoutMs: 40_000 });
  return await footprintOf(agent);
}

/** Waits until the agent holds no more than before. A few descriptors come and go by themselves: connections of peers, to the controller, of who asks. */
export async function expectNothingLeft(agent: MeshAgent, before: Footprint): Promise<void> {
  let now = before;
  const isAsBefore = async () => {
    now = await footprintOf(agent);
    const isLess = Object.entries(now.live).every(([what, value]) => value <= before.live[what]!);
    return isLess && now.descriptors <= before.descriptors + 4;
  };
  await waitFor('nothing to be left over', isAsBefore, { timeoutMs: 20_000 }).catch(() => {
    expect(now).toEqual(before);
  });
}

export function descriptorsOf(agent: MeshAgent): number {
  return readdirSync(`/proc/${agent.process.pid}/fd`).length;
}

/** Seconds of CPU that the agent has used. */
export function cpuSecondsOf(agent: MeshAgent): number {
  const fields = readFileSync(`/proc/${agent.process.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Soft RLIMIT_NOFILE: the agent gets this many descriptors more, and then EMFILE. Returns how to mend it. */
export function leaveDescriptors(agent: MeshAgent, count: number): () => void {
  const { pid } = agent.process;
  const before = /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))![1]!;
  const inUse = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
  let limit = 0;
  for (let left = count; left > 0; limit++) if (!inUse.has(limit)) left--;
  const set = (soft: number | string) => execFileSync('prlimit', ['--pid', String(pid), `--nofile=${soft}:`]);
  set(limit);
  return () => void set(before);
}

/** Makes the agent a victim of the kernel's out-of-memory killer as soon as it wants more memory; `[Symbol.dispose]` takes the limit away. */
export function starveOfMemory(agent: MeshAgent): Disposable & { readonly kills: () => number } {
  const v1 = '/sys/fs/cgroup/memory';
  return existsSync(join(v1, 'memory.limit_in_bytes')) ? starveV1(v1, agent) : starveV2(agent.pod);
}

/** Machines with the hybrid layout: a memory cgroup beside the pod's. What was charged before it moved is not counted. */
function starveV1(root: string, agent: MeshAgent) {
  const group = join(root, `culvert-test-${agent.process.pid}`);
  mkdirSync(group);
  writeFileSync(join(group, 'memory.limit_in_bytes'), String(1 << 20));
  writeFileSync(join(group, 'cgroup.procs'), String(agent.process.pid));
  let kills = 0;
  return {
    kills: () => {
      kills = killsIn(join(group, 'memory.oom_control'));
      return kills;
    },
    [Symbol.dispose]: () => rmdirSync(group),
  };
}

/** The pod's own cgroup has the limit. */
function starveV2(pod: LabPod) {
  const root = findCgroup2();
  const parents: string[] = [];
  for (let at = dirname(pod.cgroup); at.startsWith(root); at = dirname(at)) parents.unshift(at);
  for (const parent of parents) writeFileSync(join(parent, 'cgroup.subtree_control'), '+memory');
  const limit = join(pod.cgroup, 'memory.max');
  writeFileSync(limit, String(8 << 20));
  return {
    kills: () => killsIn(join(pod.cgroup, 'memory.events')),
    [Symbol.dispose]: () => writeFileSync(limit, 'max'),
  };
}

function killsIn(file: string): number {
  return Number(/^oom_kill (\d+)/m.exec(readFileSync(file, 'utf8'))?.[1]);
}

/** Packets from or to these addresses are dropped in a namespace without a word: `in`coming, `out`going, or `both`. Returns how to mend it. */
export async function cutOff(
  node: LabNode,
  address: string,
  direction: 'in' | 'out' | 'both',
): Promise<() => Promise<void>> {
  const table = ['inet', 'fault'];
  await node.output(['nft', 'add', 'table', ...table]);
  const chain = async (hook: 'input' | 'output', match: string) => {
    const spec = `{ type filter hook ${hook} priority 0; }`;
    await node.output(['nft', 'add', 'chain', ...table, hook, spec]);
    await node.output(['nft', 'add', 'rule', ...table, hook, 'ip', match, address, 'drop']);
  };
  if (direction !== 'out') await chain('input', 'saddr');
  if (direction !== 'in') await chain('output', 'daddr');
  return async () => void (await node.output(['nft', 'delete', 'table', ...table]));
}

function entriesOf(node: LabNode, name: string): number {
  using map = new Bpf().openPinnedMap(join(node.bpffsDir, `abi-${abiVersion}`, 'maps', name))!;
  return [...map.entries()].length;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
