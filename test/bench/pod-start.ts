/** How long a pod waits at its start until it is in the mesh: from its first process in cgroup and namespace to the first connection that is let. */
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../native/package-root.js';
import { killCgroup, makeCgroup, podCgroupName, removeCgroup } from '../lab/cgroup.js';
import { addressPlan, Lab, type LabNode, startMesh, waitFor } from '../lab/index.js';
import { podManifest } from '../lab/manifests.js';
import { deletePodNetwork, makePodNetwork } from '../lab/network.js';
import { threadsCpuMs } from './usage.js';

export interface PodStartOptions {
  /** Pods that start at once, each round. */
  readonly pods: number;
  readonly rounds: number;
  /** Agent and pods have precedence over what else runs on the machine. */
  readonly goesFirst: boolean;
}

export const fullPodStart: PodStartOptions = { pods: 30, rounds: 5, goesFirst: false };

/** Milliseconds, of all rounds together. */
export interface PodStart {
  readonly options: PodStartOptions;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  /** Of a pod that starts alone. */
  readonly alone: number;
  /** Milliseconds of CPU a pod, in rounds of `pods`, until all have ended: the agent's main thread, its others, and the pods themselves. */
  readonly cpu: { readonly main: number; readonly others: number; readonly pods: number };
}

interface Round {
  readonly times: readonly number[];
  readonly cpu: PodStart['cpu'];
}

interface NewPod {
  readonly uid: string;
  readonly index: number;
  readonly netns: string;
  readonly cgroup: string;
  readonly device: string;
}

const NAMESPACE = 'started';
/** Nice value of a session's autogroup: each program of a lab is a session of its own, so that its own nice value says nothing. */
const PRECEDENCE = '-18';
/** Beyond those that the lab itself gives. */
const FIRST_INDEX = 100;

export async function measurePodStart(options: PodStartOptions): Promise<PodStart> {
  const lab = await Lab.create();
  try {
    const node = await lab.node('a');
    lab.namespace(NAMESPACE, { labels: { 'istio.io/dataplane-mode': 'ambient' } });
    const mesh = await startMesh(lab, { nodes: [node], accessLog: 'off' });
    const isKnown = async (pods: readonly NewPod[]) => {
      const known = new Set((await mesh.agents[0]!.config()).capture.pods.map(({ uid }) => uid));
      return pods.every(({ uid }) => known.has(uid));
    };
    const { pid } = mesh.agents[0]!.process;
    if (options.goesFirst) writeFileSync(`/proc/${pid}/autogroup`, PRECEDENCE);
    const common = { pid, isKnown, goesFirst: options.goesFirst };
    await round(node, { ...common, count: 1 }); // the first of all warms up
    const alone = await round(node, { ...common, count: 1 });
    const rounds: Round[] = [];
    for (let i = 0; i < options.rounds; i++)
      rounds.push(await round(node, { ...common, count: options.pods }));
    const started = rounds.flatMap(({ times }) => times).sort((x, y) => x - y);
    const cpu = (of: keyof Round['cpu']) =>
      rounds.reduce((sum, one) => sum + one.cpu[of], 0) / started.length;
    const at = (share: number) => started[Math.min(started.length - 1, Math.floor(started.length * share))]!;
    return {
      ...{ options, p50: at(0.5), p99: at(0.99), max: started.at(-1)!, alone: alone.times[0]! },
      cpu: { main: cpu('main'), others: cpu('others'), pods: cpu('pods') },
    };
  } finally {
    lab.close();
  }
}

export function formatPodStart({ options, p50, p99, max, alone, cpu }: PodStart): string {
  const ms = (value: number) => `${value.toFixed(1)} ms`;
  return [
    `From a pod's first process to captured, ${options.pods} pods at once, ${options.rounds} rounds`,
    `  p50 ${ms(p50)}   p99 ${ms(p99)}   longest ${ms(max)}   a pod alone ${ms(alone)}   (targets: p50 20 ms, p99 100 ms)`,
    `  CPU a pod: agent's main thread ${ms(cpu.main)}, its others ${ms(cpu.others)}; the pods themselves ${ms(cpu.pods)}`,
  ].join('\n');
}

/** As kubelet has it: the pod is known, its cgroup and network are made; then its first process. */
async function round(
  node: LabNode,
  options: {
    readonly count: number;
    /** The agent's. */
    readonly pid: number;
    readonly isKnown: (pods: readonly NewPod[]) => Promise<boolean>;
    readonly goesFirst: boolean;
  },
): Promise<Round> {
  const { count, pid, isKnown, goesFirst } = options;
  const pods: NewPod[] = [];
  for (let i = 0; i < count; i++) pods.push(await makePod(node, FIRST_INDEX + i));
  await waitFor('the agent to know the pods', () => isKnown(pods), { timeoutMs: 60_000 });
  await sleep(500);
  const words = pods.flatMap(({ cgroup, netns }) => [join(cgroup, 'cgroup.procs'), `/run/netns/${netns}`]);
  const program = join(packageRoot(), 'test/support/build/pod-start');
  const before = threadsCpuMs(pid);
  const first = ['sh', '-c', `echo ${PRECEDENCE} > /proc/self/autogroup; exec "$@"`, 'first'];
  const command = [...(goesFirst ? first : []), program, ...words];
  const { stdout, stderr } = await node.exec(command, { timeoutMs: 120_000 });
  const after = threadsCpuMs(pid);
  const times = stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => Number(line) / 1000);
  if (times.length !== count) throw new Error(`${times.length} of ${count} pods have started: ${stderr}`);
  for (const pod of pods) await removePod(node, pod);
  const main = after.main - before.main;
  return { times, cpu: { main, others: after.all - before.all - main, pods: Number(stderr) / 1000 } };
}

async function makePod(node: LabNode, index: number): Promise<NewPod> {
  const uid = randomUUID();
  const netns = `${node.netns}-p${index}`;
  const device = `veth${index}`;
  await makePodNetwork({
    ...{ node: node.index, pod: index, nodeNetns: node.netns, podNetns: netns },
    ...{ hostDevice: device, families: 'dual' },
  });
  const cgroup = makeCgroup(join(node.cgroup, podCgroupName(node.cgroupDriver, 'besteffort', uid)));
  node.lab.manifests.apply(
    podManifest({
      ...{ name: `pod-${index}`, namespace: NAMESPACE, uid, serviceAccount: 'default', hostNetwork: false },
      ...{ containers: [{ name: 'app', image: 'lab' }], labels: {}, annotations: {}, nodeName: node.name },
      ...{ hostIPs: [node.ip], podIPs: [addressPlan.pod4(node.index, index)], ready: false },
    }),
  );
  return { uid, index, netns, cgroup, device };
}

async function removePod(node: LabNode, { cgroup, device, netns, index }: NewPod): Promise<void> {
  killCgroup(cgroup);
  await deletePodNetwork(node.netns, device, netns);
  removeCgroup(cgroup);
  node.lab.manifests.delete('Pod', `pod-${index}`, NAMESPACE);
}
