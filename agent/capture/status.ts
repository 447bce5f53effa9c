import { type BpfMap, type KernelFeature, type SharedMap, sharedMaps } from '../../native/bpf/index.js';
import type { NodeDatapath } from './node-datapath.js';
import type { Exclusions, PodState } from './types.js';

export interface PodStatus {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly state: PodState;
  /** Why it is `refused`, `waiting`, `absent` or `plain`, or what a `captured` one does not follow; else empty. */
  readonly reason: string;
  /** In force: what goes in clear and without policy though the pod is captured. */
  readonly exclusions: Exclusions;
}

/** A program of ours at a hook of the node. Each pod's own (`inbound`) is counted in `pods`. */
export interface ProgramStatus {
  readonly hook: string;
  readonly name: string;
  readonly id: number;
  /** Hash of its instructions. */
  readonly tag: string;
}

export interface LinkStatus {
  readonly hook: string;
  readonly id: number;
  readonly programId: number;
  /** False: its cgroup is gone, and it does nothing any more. */
  readonly isLive: boolean;
}

export interface MapStatus {
  readonly name: string;
  readonly id: number;
  /** Null: the kernel cannot tell (socket storage), or it is always full (counters). */
  readonly entries: number | null;
  readonly capacity: number;
}

/** For admin, metrics and culvertctl. */
export interface CaptureStatus {
  readonly pods: readonly PodStatus[];
  /** Pod cgroups that the pod source does not know: refused. */
  readonly unknownPods: number;
  /** What keeps the agent from enrolling anything, or kubelet's probes from passing; else empty. */
  readonly trouble: string;
  /** BPF's counters since the maps were made: refused_unknown, dropped_no_listener, … (enum counter in bpf/include/abi.h). */
  readonly refusals: Readonly<Record<string, number>>;
  /** What this kernel has, probed at start. */
  readonly features: readonly KernelFeature[];
  readonly programs: readonly ProgramStatus[];
  readonly links: readonly LinkStatus[];
  readonly maps: readonly MapStatus[];
}

type Inventory = Pick<CaptureStatus, 'programs' | 'links' | 'maps'>;

/** What of ours is in the kernel. A few milliseconds with full maps. Empty where it cannot be looked at (no descriptor left). */
export function inventoryOf(datapath: NodeDatapath): Inventory {
  try {
    return readInventory(datapath);
  } catch {
    return { programs: [], links: [], maps: [] };
  }
}

function readInventory(datapath: NodeDatapath): Inventory {
  const { bpf, pins } = datapath;
  const found = pins.links().map((hook) => {
    using link = bpf.openPinnedLink(pins.link(hook));
    return link === null ? null : { hook, info: link.info() };
  });
  const links = found.filter((one) => one !== null);
  return {
    programs: links.map(({ hook, info }) => ({ hook, ...bpf.programById(info.programId) })),
    links: links.map(({ hook, info: { id, programId, target } }) => {
      return { hook, id, programId, isLive: target !== 0n };
    }),
    maps: sharedMaps.map((name) => mapStatus(name, datapath.map(name))),
  };
}

function mapStatus(name: SharedMap, map: BpfMap): MapStatus {
  const { id, maxEntries: capacity } = map.info;
  if (name === 'caller_sk' || name === 'peer_sk' || name === 'counters')
    return { name, id, entries: null, capacity };
  let entries = 0;
  for (const _ of map.entries()) entries++;
  return { name, id, entries, capacity };
}
