import type { SocketAddress } from '../../mesh/common/address.js';
import type { LocalPod } from '../pods/index.js';

export {
  CaptureError,
  type CaptureErrorCode,
  type Exclusions,
  type LocalPod,
  type PodSource,
} from '../pods/index.js';

export interface CaptureOptions {
  /** Worker threads: as many listening sockets per pod and port. */
  readonly workers: number;
  /** Mount point of cgroup v2; null: found. */
  readonly cgroupRoot?: string | null;
  /** Parent of all pod cgroups, absolute or below the root; null: found. */
  readonly podsParent?: string | null;
  /** A file that is the host's network namespace; null: found. */
  readonly hostNetns?: string | null;
  /** kubelet's cgroup, absolute or below the root; 'none': there is no kubelet; null: found. */
  readonly kubeletCgroup?: string | null;
  /** Where no hook was before, connections of enrolled pods go on that are older than ours. */
  readonly keepOlderConnections?: boolean;
  /** Where everything is pinned; a bpffs is mounted where there is none. */
  readonly bpffsDir?: string;
  /** How often everything is looked at though nothing was heard. */
  readonly pollIntervalMs?: number;
  readonly emptyPodLingerMs?: number;
  readonly unenrolGraceMs?: number;
  /** Where no hook was before, they wait this long for the pods that run already: these would be refused until captured. */
  readonly firstAttachDelayMs?: number;
  /** `start` waits no longer for pods whose capture hangs; they stay refused. */
  readonly settleTimeoutMs?: number;
  /** Connections waiting to be accepted, per listening socket (the kernel's net.core.somaxconn caps it). */
  readonly listenBacklog?: number;
  /** Live connections to applications, all workers together, for which the caller's own port can nearly always be shown. 8 bytes each. */
  readonly maxShownConnections?: number;
}

export const captureDefaults = {
  cgroupRoot: null,
  podsParent: null,
  hostNetns: null,
  kubeletCgroup: null,
  keepOlderConnections: false,
  bpffsDir: '/sys/fs/bpf/culvert',
  pollIntervalMs: 1_000,
  emptyPodLingerMs: 1_000,
  unenrolGraceMs: 200,
  firstAttachDelayMs: 1_000,
  settleTimeoutMs: 10_000,
  listenBacklog: 4_096,
  maxShownConnections: 65_536,
} as const;

/** A pod whose connections come to us. All descriptors belong to the capture room and stay open until `onReleased` returns. */
export interface CapturedPod {
  readonly pod: LocalPod;
  readonly netnsFd: number;
  /** SO_NETNS_COOKIE, the BPF maps' key. */
  readonly netnsCookie: bigint;
  /** A process in the namespace when it was captured. */
  readonly pid: number;
  /** Those that BPF redirects to, one per family. */
  readonly addresses: readonly string[];
  /**
   * Listening sockets inside the pod's namespace, at least one per worker (worker = index modulo workers; more where an agent with more workers
   * has handed its own over): 15001, 15006, 15008.
   */
  readonly outboundFds: readonly number[];
  readonly inboundFds: readonly number[];
  readonly hboneFds: readonly number[];
}

/** What the agent before us had of a pod; its descriptors are ours. */
export interface InheritedPod {
  readonly uid: string;
  readonly netnsCookie: bigint;
  /** `outbound`, `inbound`, `hbone`: as in `CapturedPod`. */
  readonly sockets: Readonly<Record<string, readonly number[]>>;
}

export interface CaptureListener {
  /** Sockets listen and workers may accept; BPF redirects as soon as the promise resolves. */
  onCaptured(pod: CapturedPod): Promise<void>;
  /** Nothing new comes any more (un-enrolled or gone). Close what is left of it as `reason` says, then resolve. */
  onReleased(uid: string, reason: 'unenrolled' | 'deleted'): Promise<void>;
  /** Where the pod stands now, when that has changed. */
  onState?(uid: string, state: PodState): void;
}

/** `absent`: the pod source names it, and no cgroup does. `waiting`: enrolled, but no process has a namespace of its own yet, or workers are not ready. `refused`: capture failed; `reason` says why. */
export type PodState = 'absent' | 'plain' | 'waiting' | 'captured' | 'refused';

/** Workers: where a connection accepted on 15001 wanted to go. Takes BPF map entries out. */
export interface OriginalDestinations {
  /** Of the accepted socket: its peer, and its own port. Null: no entry; the connection must be reset. */
  take(netnsCookie: bigint, source: SocketAddress, listener: number): SocketAddress | null;
}

/** Map descriptors and constants that workers need; plain data, crosses to them as it is. */
export interface CaptureHandles {
  readonly originalDestinationsFd: number;
  /** sk_storage map that carries the caller's address to BPF at `connect`. */
  readonly callerStorageFd: number;
  /** Which ports are shown to applications now; shared by all workers (ApplicationDialer). */
  readonly shownPorts: SharedArrayBuffer;
  /** How many workers dial. */
  readonly workers: number;
}
