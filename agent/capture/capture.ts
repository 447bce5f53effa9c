/** Which local pods are in the mesh, and that their traffic comes to us: pod source × cgroup tree → one `Enrolment` per pod. */
import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import {
  findPlace,
  foreignNamespaces,
  hasAddress,
  type NodePlace,
  ownCgroup,
  PodSightings,
  podAddresses,
} from '../pods/index.js';
import { Enrolment } from './enrolment.js';
import { KubeletProbes } from './kubelet-probes.js';
import { NodeDatapath } from './node-datapath.js';
import { OlderConnections } from './older-connections.js';
import { clean } from './pins.js';
import { openPresence } from './pod-presence.js';
import { createShownPorts, ShownPorts } from './shown-ports.js';
import { type CaptureStatus, inventoryOf, type PodStatus } from './status.js';
import {
  type CapturedPod,
  type CaptureHandles,
  type CaptureListener,
  type CaptureOptions,
  captureDefaults,
  type InheritedPod,
  type LocalPod,
  type PodSource,
} from './types.js';

export interface CaptureDeps {
  readonly podSource: PodSource;
  readonly listener: CaptureListener;
  readonly log: Log;
}

const upkeepsPerSweep = 60;

export class Capture {
  readonly #options: Required<CaptureOptions>;
  readonly #deps: CaptureDeps;
  readonly #log: Log;
  readonly #pods = new Map<string, LocalPod>();
  readonly #enrolments = new Map<string, Enrolment>();
  readonly #cgroups = new Map<string, bigint>();
  readonly #shownPorts: SharedArrayBuffer;
  #datapath: NodeDatapath | null = null;
  #sightings: PodSightings | null = null;
  #ownUid: string | null = null;
  /** By uid, until somebody needs them. */
  readonly #inherited = new Map<string, InheritedPod>();
  /** Namespaces that the agent before us still serves, by uid: until it gives way nothing of theirs is swept away. */
  readonly #handed = new Map<string, bigint>();
  /** Nothing is captured or released in the kernel: the next agent is taking over, or has. */
  #isHeld = false;
  #place: NodePlace | null = null;
  #probes: KubeletProbes | null = null;
  #older: OlderConnections | null = null;
  #upkeep: NodeJS.Timeout | null = null;
  #upkeeps = 0;
  #isStopping = false;
  #starting: Promise<void> | null = null;
  /** Every pod is plain, for good. */
  #isReleased = false;

  constructor(options: CaptureOptions, deps: CaptureDeps) {
    this.#options = { ...captureDefaults, ...options };
    this.#deps = deps;
    this.#log = deps.log;
    this.#shownPorts = createShownPorts(this.#options.maxShownConnections);
  }

  /** For workers. Valid between `start` and `stop`. */
  get handles(): CaptureHandles {
    const datapath = this.#running();
    return {
      originalDestinationsFd: datapath.map('original_dst').fd,
      callerStorageFd: datapath.map('caller_sk').fd,
      shownPorts: this.#shownPorts,
      workers: this.#options.workers,
    };
  }

  /**
   * A worker has died and its connections are closed: the ports that it showed are free again. Its listeners are ours and stay; the worker
   * that takes its place accepts what waits in them.
   */
  onWorkerDied(workerIndex: number): void {
    new ShownPorts(this.#shownPorts, workerIndex).releaseAll();
  }

  /**
   * Resolves when the hooks are attached and every pod that runs now is plain or captured (or refused, with the reason in the log).
   * Throws CaptureError; what an agent before us has pinned is then still there. `inherited`: of an agent that is still at work.
   */
  async start(inherited: readonly InheritedPod[] = []): Promise<void> {
    for (const pod of inherited) {
      this.#inherited.set(pod.uid, pod);
      this.#handed.set(pod.uid, pod.netnsCookie);
    }
    try {
      this.#starting = this.#start();
      await this.#starting;
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /**
   * Adopts or makes maps and programs, and lists our own cgroup: before this our connections might be refused, after it they are plain. Attaches
   * nothing. Throws CaptureError.
   */
  prepare(): void {
    if (this.#place !== null) return;
    this.#place = this.#openDatapath();
    const { agentPod } = this.#place;
    this.#ownUid = agentPod?.uid ?? null;
    if (agentPod !== null) this.#running().listAgent(agentPod.id);
  }

  async #start(): Promise<void> {
    if (this.#isReleased) return;
    this.prepare();
    const { podsParent, hostNetns } = this.#place!;
    const datapath = this.#running();
    // Without it probes of STRICT pods would fail: then rather nothing of ours at all.
    const { kubeletCgroup: given } = this.#options;
    this.#probes = new KubeletProbes({ ...this.#place!, given }, { datapath, log: this.#log });
    if (!(await this.#awaitKubelet(this.#probes)) || this.#isReleased) return;
    const older = new OlderConnections({ net: datapath.net, log: this.#log });
    this.#older = older;
    this.#sightings = new PodSightings(
      {
        podsParent,
        foreignNamespaces: foreignNamespaces(hostNetns),
        pollIntervalMs: this.#options.pollIntervalMs,
        emptyPodLingerMs: this.#options.emptyPodLingerMs,
      },
      {
        log: this.#log,
        onChange: (uid) => void this.#touch(uid),
        isNamespaceOf: (uid, pid) => this.#isNamespaceOf(uid, pid),
      },
    );
    datapath.attachObservers();
    await this.#deps.podSource.start((pods) => this.#onPods(pods));
    this.#sightings.start();
    const settled = Promise.all([...this.#pods.keys()].map((uid) => this.#touch(uid)));
    // One pod whose capture hangs must not keep the rest of the node open, nor us from starting.
    const isFirst = !datapath.isDeciding;
    if (isFirst) await Promise.race([settled, late(this.#options.firstAttachDelayMs)]);
    // Our maps know no pod yet. Until then those of the version before us are in force: what it had captured is refused.
    else if (datapath.pins.hasOlder) await Promise.race([settled, late(this.#options.settleTimeoutMs)]);
    datapath.attachDeciders();
    if (isFirst && !this.#options.keepOlderConnections) {
      older.begin(this.#sightings.cgroups.keys());
      for (const one of this.#enrolments.values()) older.onState(one.uid, one.state, one.captured);
    }
    await Promise.race([settled, late(this.#options.settleTimeoutMs)]);
    this.#sweep();
    datapath.pins.dropOlder(datapath.bpf);
    this.#upkeep = setInterval(() => this.#keepUp(), this.#options.pollIntervalMs);
  }

  /** False: stopped meanwhile. */
  async #awaitKubelet(probes: KubeletProbes): Promise<boolean> {
    while (!this.#isStopping && !this.#isReleased) {
      if (probes.follow()) return true;
      await late(this.#options.pollIntervalMs, true);
    }
    return false;
  }

  #keepUp(): void {
    if (this.#isHeld) return; // the next agent's
    try {
      this.#probes?.check();
      if (++this.#upkeeps % upkeepsPerSweep === 0) this.#running().forgetStale();
    } catch (error) {
      this.#log.error({ error: messageOf(error) }, 'upkeep of the maps failed');
    }
  }

  #openDatapath(): NodePlace {
    const place = findPlace(this.#options);
    const { cgroupRoot, podsParent, hostNetns, agentPod } = place;
    this.#datapath = new NodeDatapath(
      {
        bpffsDir: this.#options.bpffsDir,
        cgroupRoot,
        podsParent,
        // Below the pods' parent our sockets run the parent's program already.
        agentCgroup: agentPod === null ? ownCgroup(cgroupRoot) : null,
        hostNetns,
      },
      { log: this.#log },
    );
    return place;
  }

  /**
   * Lets go of every descriptor and leaves the kernel's part in place: known pods' connections are dropped or refused until the next agent
   * comes, plain pods are served, new ones refused. Call it when workers have stopped.
   */
  async stop(): Promise<void> {
    this.#isStopping = true;
    if (this.#upkeep !== null) clearInterval(this.#upkeep);
    await this.#deps.podSource.stop();
    this.#sightings?.stop();
    await Promise.all([...this.#enrolments.values()].map((enrolment) => enrolment.stop()));
    this.#enrolments.clear();
    this.#pods.clear();
    this.#closeInherited();
    this.#datapath?.close();
    this.#datapath = null;
  }

  /** The agent before us has given way: what it had of pods that are gone goes, too. */
  dropInherited(): void {
    this.#closeInherited();
    this.#handed.clear();
    this.#sweep();
  }

  #closeInherited(): void {
    for (const { sockets } of this.#inherited.values())
      for (const fd of Object.values(sockets).flat()) closeSync(fd);
    this.#inherited.clear();
  }

  /** Nothing changes any more, until `resume` or `abdicate`. Resolves with what is captured. */
  async hold(): Promise<readonly CapturedPod[]> {
    this.#isHeld = true;
    await Promise.all([...this.#enrolments.values()].map((enrolment) => enrolment.hold()));
    return [...this.#enrolments.values()].flatMap(({ captured }) => (captured === null ? [] : [captured]));
  }

  /** Nobody has taken over. What happened meanwhile is made up for; what the other may have changed is set right. */
  async resume(): Promise<void> {
    this.#isHeld = false;
    this.#datapath?.rereadExclusions();
    await Promise.all([...this.#enrolments.values()].map((enrolment) => enrolment.resume()));
    const uids = new Set([
      ...this.#pods.keys(),
      ...this.#enrolments.keys(),
      ...this.#sightings!.cgroups.keys(),
    ]);
    await Promise.all([...uids].map((uid) => this.#touch(uid)));
    this.#sweep();
  }

  /** The next agent has taken over, with our listeners: they are closed here. Open connections go on, as long as their pods. */
  async abdicate(): Promise<void> {
    await Promise.all([...this.#enrolments.values()].map((enrolment) => enrolment.abdicate()));
  }

  /**
   * Takes every pod out of the mesh, then all that is ours off the node, whoever made it. Open connections go on in this process. A `start` that
   * runs is awaited; a later one does nothing.
   */
  async release(): Promise<void> {
    this.#isReleased = true;
    await this.#starting;
    if (this.#upkeep !== null) clearInterval(this.#upkeep);
    this.#onPods([...this.#pods.values()]);
    await Promise.all([...this.#enrolments.keys()].map((uid) => this.#touch(uid)));
    clean({ bpffsDir: this.#options.bpffsDir, force: true });
  }

  /** What keeps us from enrolling anything, or kubelet's probes from passing; else empty. */
  get trouble(): string {
    return this.#probes?.trouble ?? '';
  }

  status(): CaptureStatus {
    const pods: PodStatus[] = [];
    for (const { uid, pod, state, reason, exclusions } of this.#enrolments.values()) {
      if (pod !== null)
        pods.push({ uid, name: pod.name, namespace: pod.namespace, state, reason, exclusions });
    }
    let unknownPods = 0;
    for (const uid of this.#sightings?.cgroups.keys() ?? []) {
      if (!this.#pods.has(uid) && uid !== this.#ownUid) unknownPods++;
    }
    return {
      pods,
      unknownPods,
      trouble: this.trouble,
      refusals: this.#datapath?.counters() ?? {},
      features: this.#datapath?.features ?? [],
      ...(this.#datapath === null ? { programs: [], links: [], maps: [] } : inventoryOf(this.#datapath)),
    };
  }

  /** By its addresses, if they are known: processes pass through other namespaces on their way, and may make some of their own. */
  #isNamespaceOf(uid: string, pid: number): boolean {
    const addresses = this.#pods.get(uid)?.addresses ?? [];
    if (addresses.length > 0) return hasAddress(pid, addresses);
    const { ipv4, ipv6 } = podAddresses([], pid);
    return ipv4 !== null || ipv6 !== null;
  }

  #running(): NodeDatapath {
    if (this.#datapath === null) throw new Error('capture is not started');
    return this.#datapath;
  }

  #onPods(pods: readonly LocalPod[]): void {
    const before = new Map(this.#pods);
    const changed = new Set(before.keys());
    this.#pods.clear();
    for (const given of pods) {
      const pod = this.#isReleased ? { ...given, enrolled: false, outside: 'node released' } : given;
      this.#pods.set(pod.uid, pod);
      if (isDeepStrictEqual(before.get(pod.uid), pod)) changed.delete(pod.uid);
      else changed.add(pod.uid);
    }
    for (const uid of changed) void this.#touch(uid);
  }

  /** Brings one pod in line with what the source and the cgroup tree say of it now. Resolves when that is done; never rejects. */
  async #touch(uid: string): Promise<void> {
    const [datapath, sightings] = [this.#datapath, this.#sightings];
    if (uid === this.#ownUid || datapath === null || sightings === null) return;
    const pod = this.#pods.get(uid) ?? null;
    if (pod?.enrolled && !pod.hostNetwork) sightings.follow(uid);
    else sightings.unfollow(uid);
    const sighting = sightings.sightingOf(uid);
    if (!this.#isHeld) this.#noteCgroup(uid, sighting?.cgroup.id ?? null, datapath);
    let enrolment = this.#enrolments.get(uid);
    if (enrolment === undefined) {
      if (pod === null || this.#isHeld) return; // unknown: refused as it is; or the next agent's
      enrolment = this.#newEnrolment(uid, datapath);
      this.#enrolments.set(uid, enrolment);
    }
    await enrolment.update(pod, sighting);
    this.#older?.onState(uid, enrolment.state, enrolment.captured);
    if (enrolment.isOver && this.#enrolments.get(uid) === enrolment) this.#enrolments.delete(uid);
  }

  #noteCgroup(uid: string, id: bigint | null, datapath: NodeDatapath): void {
    const before = this.#cgroups.get(uid);
    try {
      if (before !== undefined && before !== id) datapath.forgetCgroup(before);
    } catch (error) {
      this.#log.error({ uid, error: messageOf(error) }, 'a cgroup that is gone could not be unlisted');
    }
    if (id === null) this.#cgroups.delete(uid);
    else this.#cgroups.set(uid, id);
  }

  #newEnrolment(uid: string, datapath: NodeDatapath): Enrolment {
    const { workers, listenBacklog, unenrolGraceMs } = this.#options;
    return new Enrolment(
      { uid, unenrolGraceMs },
      {
        tables: datapath,
        listener: this.#deps.listener,
        openPresence: (pod, seen) => {
          const inherited = this.#inherited.get(uid) ?? null;
          this.#inherited.delete(uid);
          return openPresence({ pod, seen, workers, listenBacklog, inherited }, { datapath });
        },
        log: this.#log,
      },
    );
  }

  /** What earlier agents left for pods that are gone, or that are no more in the mesh. */
  #sweep(): void {
    const cookies = new Set<bigint>();
    const uids = new Set<string>();
    for (const { uid, captured, state } of this.#enrolments.values()) {
      if (captured !== null) cookies.add(captured.netnsCookie);
      if (state !== 'plain' && state !== 'absent') uids.add(uid);
    }
    for (const [uid, cookie] of this.#handed) {
      if (this.#enrolments.get(uid)?.state === 'plain') continue;
      cookies.add(cookie);
      uids.add(uid);
    }
    const cgroups = new Map<bigint, boolean>();
    for (const [uid, { id }] of this.#sightings!.cgroups) cgroups.set(id, this.#pods.has(uid));
    try {
      this.#running().sweep({ cookies, uids, cgroups });
    } catch (error) {
      this.#log.error({ error: messageOf(error) }, 'leftovers of an earlier agent could not be removed');
    }
  }
}

/** Does not keep the process alive unless `ref`. */
function late(ms: number, ref = false): Promise<void> {
  return sleep(ms, undefined, { ref });
}
