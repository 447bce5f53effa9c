/**
 * One pod from first sight to its end: plain, captured, or (until it is one of these) refused by the kernel. Decides the order of
 * steps, so that at no moment traffic of an enrolled pod is plain, and traffic of a running pod that changes sides is not refused:
 *   enrol    listeners open → workers ready → inbound steered → outbound redirected → cgroup listed (was it plain before, now no more)
 *   un-enrol cgroup listed plain → outbound no more redirected → inbound no more steered → workers let go → listeners closed
 *   end      cgroup no more listed → outbound refused → inbound no more steered → workers let go → listeners closed
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { MeshError, messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import type { CapturedAddresses } from '../../native/bpf/index.js';
import type { PodSighting, SeenNamespace } from '../pods/index.js';
import { noExclusions, podAddresses } from '../pods/index.js';
import {
  type CapturedPod,
  CaptureError,
  type CaptureListener,
  type Exclusions,
  type LocalPod,
  type PodState,
} from './types.js';

/** What of the node's maps concerns single pods. */
export interface PodTables {
  /** Never over a live agent's entry. */
  listCgroup(cgroupId: bigint, kind: 'plain' | 'captured'): void;
  /** Never a live agent's entry. */
  unlistCgroup(cgroupId: bigint): void;
  setCaptured(netnsCookie: bigint, addresses: CapturedAddresses, exclusions: Exclusions): void;
  /** What the namespace's pod wants left alone, in place of what was said before; of outbound ones `setCaptured` has to be told, too. */
  setExclusions(netnsCookie: bigint, exclusions: Exclusions): void;
  /** With its exclusions. */
  removeCaptured(netnsCookie: bigint): void;
  /** The namespace is gone with its pod: what is recorded of its connections goes, too, some time. */
  forgetNamespace(netnsCookie: bigint): void;
}

/** Our presence in one pod's namespace: listeners, and the program that steers inbound connections to them. */
export interface PodPresence {
  readonly captured: CapturedPod;
  /** Inbound connections come to the listeners from now on (also: in place of another agent's). */
  steer(): void;
  /** Inbound connections go where they would without us. */
  unsteer(): void;
  /** Nothing is accepted here any more: another agent has the same sockets. */
  closeListeners(): void;
  /** Closes every descriptor. */
  close(): void;
}

/**
 * `active`: the kernel's part is ours. `held`: nothing is done until it is known whether the next agent takes over. `passive`: it has; what is
 * open here goes on, and ends with its pod.
 */
type Mode = 'active' | 'held' | 'passive';

export interface EnrolmentDeps {
  readonly tables: PodTables;
  readonly listener: CaptureListener;
  /** Opens listeners inside the namespace. Throws CaptureError (ROUTE_LOCALNET, …). */
  readonly openPresence: (pod: LocalPod, seen: SeenNamespace) => PodPresence;
  readonly log: Log;
}

export interface EnrolmentOptions {
  /** After un-enrolment, for handshakes that were already on their way to the listeners. */
  readonly unenrolGraceMs: number;
}

const firstRetryMs = 500;
const maxRetryMs = 30_000;

export class Enrolment {
  readonly uid: string;
  readonly #options: EnrolmentOptions;
  readonly #deps: EnrolmentDeps;
  #pod: LocalPod | null = null;
  #sighting: PodSighting | null = null;
  #state: PodState = 'absent';
  #reason = '';
  #presence: PodPresence | null = null;
  #seen: SeenNamespace | null = null;
  #listedCgroup: bigint | null = null;
  /** What connections are redirected to, and what not, as text; empty: they are not redirected. */
  #addresses = '';
  #exclusions = noExclusions;
  #running: Promise<void> | null = null;
  #again = false;
  #stopped = false;
  #mode: Mode = 'active';
  /** Another agent has been at work on the kernel's part. */
  #isDoubtful = false;
  #retry: NodeJS.Timeout | null = null;
  #retryDelayMs = firstRetryMs;

  constructor(options: EnrolmentOptions & { uid: string }, deps: EnrolmentDeps) {
    this.uid = options.uid;
    this.#options = options;
    this.#deps = deps;
  }

  get state(): PodState {
    return this.#state;
  }

  /** Why it is `refused`, `waiting`, `absent` or `plain`, or what a `captured` one does not follow; else empty. */
  get reason(): string {
    return this.#reason;
  }

  /** Those in force. */
  get exclusions(): Exclusions {
    return this.#presence === null ? noExclusions : this.#exclusions;
  }

  get pod(): LocalPod | null {
    return this.#pod;
  }

  get captured(): CapturedPod | null {
    return this.#presence?.captured ?? null;
  }

  /** True once nothing of the pod is left: no cgroup, not in the source, no presence. */
  get isOver(): boolean {
    return this.#running === null && this.#pod === null && this.#sighting === null && this.#presence === null;
  }

  /** The pod (null: the source has none) or what is seen of it (null: no cgroup) has changed. Resolves when acted upon. */
  update(pod: LocalPod | null, sighting: PodSighting | null): Promise<void> {
    this.#pod = pod;
    this.#sighting = sighting;
    return this.#touch();
  }

  /** Closes descriptors; what is in the kernel stays as it is, so that the pod's traffic waits for the next agent (fails closed). */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    await this.#running;
    this.#presence?.close();
    this.#presence = null;
  }

  /** For a takeover. Resolves when no step is under way; until `resume` or `abdicate` there is none. */
  async hold(): Promise<void> {
    this.#mode = 'held';
    await this.#running;
  }

  /** Nobody has taken over: makes up for what has happened meanwhile, and sets right what the other agent may have changed. */
  async resume(): Promise<void> {
    this.#mode = 'active';
    this.#isDoubtful = true;
    await this.#touch();
  }

  /** Another agent has taken over, and has our listeners. */
  async abdicate(): Promise<void> {
    this.#mode = 'passive';
    this.#presence?.closeListeners();
    await this.#touch();
  }

  #touch(): Promise<void> {
    this.#again = true;
    if (this.#mode === 'held') return Promise.resolve();
    this.#running ??= this.#run();
    return this.#running;
  }

  async #run(): Promise<void> {
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
    while (this.#again && !this.#stopped && this.#mode !== 'held') {
      this.#again = false;
      try {
        await this.#step();
        this.#retryDelayMs = firstRetryMs;
      } catch (error) {
        this.#failed(error);
      }
    }
    this.#running = null;
  }

  async #step(): Promise<void> {
    const [pod, sighting] = [this.#pod, this.#sighting];
    if (this.#mode === 'passive') {
      await this.#follow(pod, sighting);
      return;
    }
    if (this.#listedCgroup !== null && this.#listedCgroup !== sighting?.cgroup.id) this.#unlist();
    if (pod === null || sighting === null) {
      await this.#end();
      this.#become('absent', pod === null ? '' : 'no cgroup on this node is named after its uid');
    } else if (!pod.enrolled || pod.hostNetwork) {
      await this.#makePlain(sighting.cgroup.id);
      this.#become('plain', pod.outside);
    } else if (sighting.namespace === null) {
      await this.#end();
      this.#become('waiting', 'no process in a network namespace with its address yet');
    } else {
      if (this.#seen !== null && this.#seen.inode !== sighting.namespace.inode) await this.#end();
      if (this.#state === 'absent') this.#become('waiting', 'workers are getting ready');
      await this.#capture(pod, sighting.namespace, sighting.cgroup.id);
    }
  }

  /** Lets go of the pod when it ends or leaves the mesh. What that means for the kernel is the next agent's to do. */
  async #follow(pod: LocalPod | null, sighting: PodSighting | null): Promise<void> {
    const presence = this.#presence;
    if (presence === null) return;
    const isGone = pod === null || sighting === null;
    if (!isGone && pod.enrolled && sighting.namespace?.inode === this.#seen?.inode) return;
    this.#presence = null;
    await this.#letGo(presence, isGone || pod.enrolled ? 'deleted' : 'unenrolled');
  }

  async #capture(pod: LocalPod, seen: SeenNamespace, cgroupId: bigint): Promise<void> {
    if (pod.fault !== '' && this.#presence === null) throw new CaptureError('INVALID_POD', pod.fault);
    const isNew = this.#presence === null;
    if (this.#presence === null) await this.#enter(pod, seen);
    else if (this.#isDoubtful) this.#setRight(this.#presence);
    this.#isDoubtful = false;
    if (this.#presence === null) return;
    const { netnsCookie, addresses: found } = this.#presence.captured;
    // Its last good exclusions stay in force.
    if (pod.fault === '' && !sameExclusions(pod.exclusions, this.#exclusions)) {
      this.#deps.tables.setExclusions(netnsCookie, pod.exclusions);
      this.#exclusions = pod.exclusions;
    }
    const addresses = podAddresses(isNew ? found : pod.addresses, seen.pid);
    this.#setAddresses({ ...addresses, dns: pod.dnsCapture });
    this.#list(cgroupId, 'captured');
    this.#become('captured', pod.fault);
  }

  async #enter(pod: LocalPod, seen: SeenNamespace): Promise<void> {
    const presence = await this.#open(pod, seen);
    if (presence === null) return;
    try {
      this.#deps.tables.setExclusions(presence.captured.netnsCookie, pod.exclusions);
      this.#exclusions = pod.exclusions;
      presence.steer();
      this.#presence = presence;
      this.#seen = seen;
    } catch (error) {
      await this.#letGo(presence, 'unenrolled');
      throw error;
    }
  }

  #setRight(presence: PodPresence): void {
    this.#addresses = '';
    this.#deps.tables.setExclusions(presence.captured.netnsCookie, this.#exclusions);
    presence.steer();
  }

  /** Null: stopped meanwhile. */
  async #open(pod: LocalPod, seen: SeenNamespace): Promise<PodPresence | null> {
    const presence = this.#deps.openPresence(pod, seen);
    try {
      await this.#deps.listener.onCaptured(presence.captured);
    } catch (error) {
      presence.close();
      throw error;
    }
    if (!this.#stopped) return presence;
    presence.close();
    return null;
  }

  async #makePlain(cgroupId: bigint): Promise<void> {
    this.#list(cgroupId, 'plain');
    const presence = this.#withdraw();
    if (presence === null) return;
    await sleep(this.#options.unenrolGraceMs);
    await this.#letGo(presence, 'unenrolled');
  }

  async #end(): Promise<void> {
    this.#unlist();
    const presence = this.#withdraw();
    if (presence === null) return;
    await this.#letGo(presence, 'deleted');
    this.#deps.tables.forgetNamespace(presence.captured.netnsCookie);
  }

  /** From here on nothing new comes to the listeners. */
  #withdraw(): PodPresence | null {
    const presence = this.#presence;
    if (presence === null) return null;
    this.#deps.tables.removeCaptured(presence.captured.netnsCookie);
    presence.unsteer();
    this.#presence = null;
    this.#seen = null;
    this.#addresses = '';
    return presence;
  }

  async #letGo(presence: PodPresence, reason: 'unenrolled' | 'deleted'): Promise<void> {
    try {
      await this.#deps.listener.onReleased(this.uid, reason);
    } catch (error) {
      this.#deps.log.error(
        { uid: this.uid, error: messageOf(error) },
        'releasing a pod failed in the tunnel',
      );
    }
    presence.close();
  }

  #setAddresses(addresses: CapturedAddresses): void {
    const text = JSON.stringify([addresses, this.#exclusions]);
    if (text === this.#addresses) return;
    this.#deps.tables.setCaptured(this.#presence!.captured.netnsCookie, addresses, this.#exclusions);
    this.#addresses = text;
  }

  #list(cgroupId: bigint, kind: 'plain' | 'captured'): void {
    this.#deps.tables.listCgroup(cgroupId, kind);
    this.#listedCgroup = cgroupId;
  }

  #unlist(): void {
    const cgroupId = this.#listedCgroup ?? this.#sighting?.cgroup.id ?? null;
    if (cgroupId !== null) this.#deps.tables.unlistCgroup(cgroupId);
    this.#listedCgroup = null;
  }

  #become(state: PodState, reason = ''): void {
    if (state === 'captured' && reason !== '' && reason !== this.#reason)
      this.#deps.log.warn(
        { uid: this.uid, pod: this.#pod?.name, namespace: this.#pod?.namespace, reason },
        'pod captured as before: its manifest cannot be followed',
      );
    this.#reason = reason;
    if (state === this.#state) return;
    this.#enterState(state);
    const fields = { uid: this.uid, pod: this.#pod?.name, namespace: this.#pod?.namespace, state };
    const tell = () => this.#deps.log.info(fields, 'pod');
    // Pods that start at the same moment do not wait for one another's lines.
    if (state === 'captured') setImmediate(tell);
    else tell();
  }

  #enterState(state: PodState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#deps.listener.onState?.(this.uid, state);
  }

  #failed(error: unknown): void {
    if (this.#addresses === '' && this.#pod?.enrolled) this.#refuse();
    const code = error instanceof MeshError ? error.code : 'INTERNAL';
    const reason = `${code}: ${messageOf(error)}`;
    if (this.#reason !== reason) {
      const pod = this.#pod;
      this.#deps.log.error(
        { uid: this.uid, pod: pod?.name, namespace: pod?.namespace, reason },
        'pod not captured: its connections are refused',
      );
    }
    this.#enterState('refused');
    this.#reason = reason;
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#touch(), this.#retryDelayMs);
    this.#retryDelayMs = Math.min(this.#retryDelayMs * 2, maxRetryMs);
  }

  /** An enrolled pod that is not redirected must not stay listed as plain from before. */
  #refuse(): void {
    try {
      this.#unlist();
    } catch (error) {
      this.#deps.log.error({ uid: this.uid, error: messageOf(error) }, 'a pod could not be unlisted');
    }
  }
}

function sameExclusions(a: Exclusions, b: Exclusions): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
