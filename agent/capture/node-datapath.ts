/**
 * The node's part of BPF: shared maps and the programs at the pods' parent cgroup, pinned, so that they outlive us and are adopted by the
 * next agent. A pinned link counts only if its target is the present one; programs of a live link are replaced in one step.
 */
import { unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import {
  Bpf,
  type BpfMap,
  type BpfObject,
  type BpfProgram,
  type CapturedAddresses,
  type CgroupKind,
  cgroupKind,
  counterNames,
  decodeOriginalKey,
  encodeCapturedPod,
  encodeU32,
  encodeU64,
  type KernelFeature,
  originalBorn,
  type SharedMap,
  sharedMaps,
} from '../../native/bpf/index.js';
import { NativeError, packageRoot } from '../../native/index.js';
import { cgroupId, cgroupLevel, Net } from '../../native/net/index.js';
import { noExclusions } from '../pods/index.js';
import type { PodTables } from './enrolment.js';
import { ExclusionTables } from './exclusion-tables.js';
import { requireFeatures } from './kernel-features.js';
import { adoptLink, pinNew, takeOver } from './links.js';
import { Pins } from './pins.js';
import { CaptureError, type Exclusions } from './types.js';

export interface NodeDatapathOptions {
  readonly bpffsDir: string;
  readonly cgroupRoot: string;
  readonly podsParent: string;
  /** Where our own sockets are, if not below the pods' parent. */
  readonly agentCgroup: string | null;
  readonly hostNetns: string;
}

/** What is still in use when leftovers are removed. */
export interface InUse {
  /** Of captured namespaces. */
  readonly cookies: ReadonlySet<bigint>;
  /** Of pods that are captured or are to be. */
  readonly uids: ReadonlySet<string>;
  /** Ids of all pod cgroups, and whether the pod source knows the pod. */
  readonly cgroups: ReadonlyMap<bigint, boolean>;
}

/** Program by name, and the object it is in. Observers only record; deciders refuse and redirect. */
const observers = [
  ['getpeername4', 'connect'],
  ['getpeername6', 'connect'],
  ['sock_ops', 'sockops'],
  ['recvmsg4', 'dns'],
  ['recvmsg6', 'dns'],
] as const;
const deciders = [
  ['connect4', 'connect'],
  ['connect6', 'connect'],
  ['sendmsg4', 'dns'],
  ['sendmsg6', 'dns'],
  ['hold_ingress', 'ingress'],
] as const;
const forgetDelayMs = 1_000;
const staleOriginalSeconds = 300;
/** Of `inbound`: a node's pods that start at once are seldom more. 3 descriptors and some 12 KB of the kernel's each. */
const maxSpares = 32;
/** Without a pod that was captured. */
const quietMs = 500;
const betweenSparesMs = 20;
const probeHook = 'probe_tickets';
const agentHook = 'sock_ops_agent_';

export class NodeDatapath implements PodTables {
  readonly bpf: Bpf;
  readonly net: Net;
  readonly pins: Pins;
  readonly features: readonly KernelFeature[];
  readonly #options: NodeDatapathOptions;
  readonly #log: Log;
  readonly #maps = new Map<SharedMap, BpfMap>();
  readonly #objects = new Map<string, BpfObject>();
  readonly #exclusions: ExclusionTables;
  #gone = new Set<bigint>();
  #forgetting: NodeJS.Timeout | null = null;
  readonly #spares: BpfObject[] = [];
  #spareTimer: NodeJS.Timeout | null = null;

  /** Adopts or makes the maps and loads the programs; attaches nothing. Throws CaptureError. */
  constructor(options: NodeDatapathOptions, deps: { log: Log }) {
    this.#options = options;
    this.#log = deps.log;
    this.bpf = new Bpf();
    this.net = new Net();
    this.features = requireFeatures(this.bpf, this.#log);
    this.pins = Pins.open(options.bpffsDir, this.bpf);
    try {
      this.#load();
      this.#exclusions = new ExclusionTables({
        ports: this.map('excluded_ports'),
        ranges: this.map('excluded_ranges'),
      });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  map(name: SharedMap): BpfMap {
    return this.#maps.get(name)!;
  }

  get sharedMaps(): Readonly<Record<string, BpfMap>> {
    return Object.fromEntries(this.#maps);
  }

  /** True: an agent before us (of an older version, too) has attached all deciders, and they work. */
  get isDeciding(): boolean {
    const parent = cgroupId(this.#options.podsParent);
    return deciders.every(([hook]) =>
      [this.pins.link(hook), ...this.pins.olderLinks(hook)].some((path) => {
        using link = this.bpf.openPinnedLink(path);
        return link?.info().target === parent;
      }),
    );
  }

  attachObservers(): void {
    const { podsParent, agentCgroup } = this.#options;
    for (const [hook, object] of observers) this.#attach(hook, this.#program(object, hook), podsParent);
    if (agentCgroup === null || agentCgroup === podsParent) return;
    this.#attach(`${agentHook}${cgroupId(agentCgroup)}`, this.#program('sockops', 'sock_ops'), agentCgroup);
  }

  /** kubelet's connections get tickets from now on; null: there is no kubelet. Again whenever its cgroup is another one. */
  attachProbes(kubeletCgroup: string | null): void {
    if (kubeletCgroup === null) {
      this.#detach(probeHook);
      return;
    }
    using host = this.net.openNetns(this.#options.hostNetns);
    using object = this.#loadObject('probes', { host_netns_cookie: host.cookie() }, {});
    this.#attach(probeHook, object.program(probeHook), kubeletCgroup);
  }

  /** From now on unknown pods are refused and captured ones redirected. */
  attachDeciders(): void {
    for (const [hook, object] of deciders)
      this.#attach(hook, this.#program(object, hook), this.#options.podsParent);
    for (const [hook, object] of [...observers, ...deciders]) this.#checkAlone(this.#program(object, hook));
    this.#makeSparesIn(quietMs);
    // Links keep their programs.
    for (const object of this.#objects.values()) object.close();
    this.#objects.clear();
  }

  /** Our own pod: its processes connect plainly, from any namespace. */
  listAgent(cgroup: bigint): void {
    this.map('pod_cgroups').update(encodeU64(cgroup), kindValue('agent'));
  }

  listCgroup(cgroup: bigint, kind: 'plain' | 'captured'): void {
    const key = encodeU64(cgroup);
    const value = kindValue(kind);
    // An agent may list itself at any moment: only a pod's own entry is ever overwritten.
    if (this.map('pod_cgroups').update(key, value, 'create')) return;
    const present = this.#kindOf(cgroup);
    if (present !== kind && present !== 'agent') this.map('pod_cgroups').update(key, value);
  }

  unlistCgroup(cgroup: bigint): void {
    if (this.#kindOf(cgroup) !== 'agent') this.map('pod_cgroups').delete(encodeU64(cgroup));
  }

  /** The cgroup itself is gone: an agent's entry goes, too. */
  forgetCgroup(cgroup: bigint): void {
    this.map('pod_cgroups').delete(encodeU64(cgroup));
  }

  setCaptured(netnsCookie: bigint, addresses: CapturedAddresses, exclusions: Exclusions): void {
    const flags = {
      ports: exclusions.outboundPorts.length > 0,
      ranges: exclusions.outboundRanges.length > 0,
    };
    this.map('captured').update(encodeU64(netnsCookie), encodeCapturedPod(addresses, flags));
  }

  /** Another agent may have written to the maps. */
  rereadExclusions(): void {
    this.#exclusions.read();
  }

  setExclusions(netnsCookie: bigint, exclusions: Exclusions): void {
    this.#exclusions.set(netnsCookie, exclusions);
  }

  removeCaptured(netnsCookie: bigint): void {
    this.map('captured').delete(encodeU64(netnsCookie));
    this.#exclusions.set(netnsCookie, noExclusions);
  }

  forgetNamespace(netnsCookie: bigint): void {
    this.#gone.add(netnsCookie);
    // Many pods may end at once, and each pass looks at every connection of the node.
    this.#forgetting ??= setTimeout(() => {
      this.#forgetting = null;
      const gone = this.#gone;
      this.#gone = new Set();
      this.#forgetConnections((cookie) => gone.has(cookie));
    }, forgetDelayMs).unref();
  }

  /** Since the maps were made, by reason. */
  counters(): Record<string, number> {
    const values: Record<string, number> = {};
    for (const [index, name] of counterNames.entries()) {
      values[name] = Number(this.map('counters').sumPerCpu(encodeU32(index)));
    }
    return values;
  }

  /** Removes what earlier agents have left for pods, cgroups and agents that are gone. */
  sweep({ cookies, uids, cgroups }: InUse): void {
    for (const [key, value] of [...this.map('pod_cgroups').entries()]) {
      const known = cgroups.get(key.readBigUInt64LE());
      if (known === true) continue;
      if (known === undefined || value.readUInt32LE() !== cgroupKind.agent)
        this.map('pod_cgroups').delete(key);
    }
    for (const [key] of [...this.map('captured').entries()]) {
      if (!cookies.has(key.readBigUInt64LE())) this.map('captured').delete(key);
    }
    this.#exclusions.keepOnly(cookies);
    this.#forgetConnections((cookie) => !cookies.has(cookie));
    for (const uid of this.pins.pods()) {
      if (!uids.has(uid)) this.removePod(uid);
    }
    for (const hook of this.pins.links()) {
      if (!hook.startsWith(agentHook)) continue;
      using link = this.bpf.openPinnedLink(this.pins.link(hook));
      if (link?.info().target === 0n) unlinkSync(this.pins.link(hook));
    }
  }

  /** Takes a pod's sk_lookup program off and forgets it, whoever has pinned it. */
  removePod(uid: string): void {
    using link = this.bpf.openPinnedLink(this.pins.pod(uid, 'link'));
    if (link !== null && link.info().target !== 0n) link.detach();
    this.pins.removePod(uid);
  }

  /** One more instance of the program that steers a pod's inbound connections; the caller closes it. */
  loadInbound(netnsCookie: bigint, listeners: BpfMap | null): BpfObject {
    const spare = listeners === null ? this.#spares.pop() : undefined;
    const object = spare ?? this.#loadObject('inbound', {}, listeners === null ? {} : { listeners });
    object.map('.data.pod').update(encodeU32(0), encodeU64(netnsCookie));
    this.#makeSparesIn(quietMs);
    return object;
  }

  /** To load one takes longer than all the rest of a capture: some are kept for pods that start. Made while no pod does. */
  #makeSparesIn(ms: number): void {
    if (this.#spareTimer !== null) clearTimeout(this.#spareTimer);
    this.#spareTimer = setTimeout(() => {
      this.#spareTimer = null;
      if (this.#spares.length >= maxSpares) return;
      try {
        const object = this.#loadObject('inbound', {}, {});
        for (const name of sharedMaps) object.map(name).close();
        this.#spares.push(object);
        this.#makeSparesIn(betweenSparesMs);
      } catch (error) {
        this.#log.warn({ error: messageOf(error) }, 'no program could be loaded ahead of pods');
      }
    }, ms).unref();
  }

  close(): void {
    if (this.#forgetting !== null) clearTimeout(this.#forgetting);
    if (this.#spareTimer !== null) clearTimeout(this.#spareTimer);
    for (const object of this.#spares.splice(0)) object.close();
    for (const object of this.#objects.values()) object.close();
    for (const map of this.#maps.values()) map.close();
    this.#objects.clear();
    this.#maps.clear();
  }

  /**
   * What waits to be accepted longer than anybody would: its listener went before it came to that. Without this a client that closed in order
   * would leave its entry for ever.
   */
  forgetStale(): void {
    const originals = this.map('original_dst');
    const nowSeconds = Number(process.hrtime.bigint() / 1_000_000_000n); // CLOCK_MONOTONIC, as in the kernel
    for (const [key, value] of [...originals.entries()]) {
      if (nowSeconds - originalBorn(value) > staleOriginalSeconds) originals.delete(key);
    }
  }

  /** Those of namespaces in use are taken by workers, or forgotten by BPF when they close. */
  #forgetConnections(isGone: (netnsCookie: bigint) => boolean): void {
    for (const map of [this.map('original_dst'), this.map('mptcp_peers')]) {
      for (const [key] of [...map.entries()]) {
        if (isGone(decodeOriginalKey(key).netnsCookie)) map.delete(key);
      }
    }
  }

  #load(): void {
    for (const name of sharedMaps) {
      const map = this.bpf.openPinnedMap(this.pins.map(name));
      if (map !== null) this.#maps.set(name, map);
    }
    const { cgroupRoot, podsParent, hostNetns } = this.#options;
    using host = this.net.openNetns(hostNetns);
    const deciding = {
      host_netns_cookie: host.cookie(),
      parent_cgroup: cgroupId(podsParent),
      parent_level: cgroupLevel(podsParent, cgroupRoot),
    };
    this.#objects.set('connect', this.#loadObject('connect', deciding, {}));
    for (const name of sharedMaps) {
      if (this.#maps.has(name)) continue;
      this.#objects.get('connect')!.map(name).pin(this.pins.map(name));
      this.#maps.set(name, this.bpf.openPinnedMap(this.pins.map(name))!);
    }
    this.#objects.set('sockops', this.#loadObject('sockops', {}, {}));
    this.#objects.set('ingress', this.#loadObject('ingress', deciding, {}));
    this.#objects.set('dns', this.#loadObject('dns', deciding, {}));
  }

  #loadObject(
    name: string,
    rodata: Record<string, number | bigint>,
    maps: Record<string, BpfMap>,
  ): BpfObject {
    const path = join(packageRoot(), 'bpf/build', `${name}.bpf.o`);
    const reuseMaps = { ...this.sharedMaps, ...maps };
    try {
      return this.bpf.load(path, { rodata, reuseMaps });
    } catch (error) {
      if (error instanceof NativeError && error.data['map'] !== undefined) {
        const reason = `the pinned map ${error.data['map']} is of another build: release the node (culvertctl node release)`;
        throw new CaptureError('ABI_MISMATCH', reason, { map: error.data['map'] }, error);
      }
      throw new CaptureError('ATTACH_FAILED', `${name}: ${messageOf(error)}`, { object: name }, error);
    }
  }

  #program(object: string, program: string): BpfProgram {
    return this.#objects.get(object)!.program(program);
  }

  #attach(hook: string, program: BpfProgram, cgroup: string): void {
    const path = this.pins.link(hook);
    try {
      using adopted = adoptLink(this.bpf, path, cgroupId(cgroup));
      if (adopted !== null) adopted.updateProgram(program);
      else if (!takeOver(this.bpf, path, this.pins.olderLinks(hook), cgroupId(cgroup), program))
        pinNew(path, this.bpf.attachCgroup(program, cgroup)).close();
    } catch (error) {
      throw new CaptureError('ATTACH_FAILED', `${hook}: ${messageOf(error)}`, { hook, cgroup }, error);
    }
  }

  #detach(hook: string): void {
    using link = this.bpf.openPinnedLink(this.pins.link(hook));
    if (link === null) return;
    if (link.info().target !== 0n) link.detach();
    unlinkSync(this.pins.link(hook));
  }

  /** Ours once, whoever else is there. A second one was pinned elsewhere (another bpffsDir): both would act. */
  #checkAlone(program: BpfProgram): void {
    const { tag, name } = program.info();
    const attached = this.bpf.attached(this.#options.podsParent, program.attachType);
    const ours = attached.filter((other) => other.name === name && other.tag === tag);
    if (ours.length === 1) return;
    this.#log.error(
      { program: name, ids: ours.map(({ id }) => id) },
      'not exactly one of our programs at its hook',
    );
  }

  #kindOf(cgroup: bigint): CgroupKind | null {
    const value = this.map('pod_cgroups').lookup(encodeU64(cgroup))?.readUInt32LE();
    return (Object.keys(cgroupKind) as CgroupKind[]).find((kind) => cgroupKind[kind] === value) ?? null;
  }
}

function kindValue(kind: CgroupKind): Buffer {
  return encodeU32(cgroupKind[kind]);
}
