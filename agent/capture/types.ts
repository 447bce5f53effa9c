import type { SocketAddress } from '../../mesh/common/address.js';
import { MeshError } from '../../mesh/common/errors.js';

/** A pod of this node as its pod source gives it: a folder of manifests, or later the API server. */
export interface LocalPod {
  /** metadata.uid: names the pod's cgroup. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly addresses: readonly string[];
  readonly hostNetwork: boolean;
  /** By `istio.io/dataplane-mode` on pod and namespace (mesh-apis.md 1.1). */
  readonly enrolled: boolean;
  /** What its user wants left alone, though it is enrolled. */
  readonly exclusions: Exclusions;
  /** `ambient.istio.io/dns-capture`; true unless it says "false". */
  readonly dnsCapture: boolean;
  /** Why its annotations cannot be followed; else empty. An enrolled pod is then refused, or goes on as it was captured before. */
  readonly fault: string;
}

/** Connections of a captured pod that go as they would without the mesh: in clear text, without policy. */
export interface Exclusions {
  /** Destination ports. */
  readonly outboundPorts: readonly number[];
  /** Destinations, `address/prefix bits`, canonical. */
  readonly outboundRanges: readonly string[];
  /** The pod's own ports; 0: all. HBONE (15008) comes to the agent in any case. */
  readonly inboundPorts: readonly number[];
}

/** Where the agent learns of its node's pods. */
export interface PodSource {
  /** Calls `onPods` with all local pods, now (once known) and after every change. */
  start(onPods: (pods: readonly LocalPod[]) => void): Promise<void>;
  stop(): Promise<void>;
}

/** A pod whose connections come to us. All descriptors belong to the capture room and stay open until `onReleased` returns. */
export interface CapturedPod {
  readonly pod: LocalPod;
  readonly netnsFd: number;
  /** SO_NETNS_COOKIE, the BPF maps' key. */
  readonly netnsCookie: bigint;
  /** Listening sockets inside the pod's namespace, one per worker (index = worker): 15001, 15006, 15008. */
  readonly outboundFds: readonly number[];
  readonly inboundFds: readonly number[];
  readonly hboneFds: readonly number[];
}

export interface CaptureListener {
  /** Sockets listen and workers may accept; BPF redirects as soon as the promise resolves. */
  onCaptured(pod: CapturedPod): Promise<void>;
  /** Nothing new comes any more (un-enrolled or gone). Close what is left of it as `reason` says, then resolve. */
  onReleased(uid: string, reason: 'unenrolled' | 'deleted'): Promise<void>;
}

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

export type CaptureErrorCode =
  | 'KERNEL_TOO_OLD' // the kernel lacks something without which nothing can be captured; data lists it
  | 'NO_CGROUP2' // no cgroup v2 mount, or what was given is none
  | 'NO_HOST_NETNS' // which namespace is the host's cannot be told
  | 'NO_PODS_PARENT' // the cgroup above all pods is not there, or not clear
  | 'BPFFS_UNUSABLE' // the pin directory is not on a bpffs and none could be mounted
  | 'ABI_MISMATCH' // pinned maps or programs are of another abi.h: drain, then `clean`
  | 'ROUTE_LOCALNET' // the pod lets 127.0.0.0/8 in from its network: a caller could pose as the agent
  | 'POD_GONE' // its process ended while its namespace was being entered
  | 'INVALID_POD' // an annotation of an enrolled pod cannot be followed
  | 'NO_KUBELET' // kubelet's cgroup is not found: probes could not be told from other connections of the node
  | 'AGENT_ALIVE' // a live agent uses what is to be removed
  | 'NO_SHOWN_PORT' // no port left under which an application could tell a caller's connections apart
  | 'NO_HOST_PIDS' // the agent sees pods' cgroups but not their processes
  | 'ATTACH_FAILED'; // the kernel refused a program, map or link; cause names it

/** What went wrong in agent/capture. `data` names the pod, path or program. */
export class CaptureError extends MeshError<CaptureErrorCode> {}
