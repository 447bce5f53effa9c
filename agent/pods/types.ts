import { MeshError } from '../../mesh/common/errors.js';
import type { Exclusions, ManifestProblem } from '../../mesh/manifests/types.js';

export type { Exclusions } from '../../mesh/manifests/types.js';

export const noExclusions: Exclusions = { outboundPorts: [], outboundRanges: [], inboundPorts: [] };

/** A pod of this node as its pod source gives it: a folder of manifests, or the API server. */
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
  /** For people: why it is not enrolled; else empty. */
  readonly outside: string;
  /** What its user wants left alone, though it is enrolled. */
  readonly exclusions: Exclusions;
  /** `ambient.istio.io/dns-capture`; true unless it says "false". */
  readonly dnsCapture: boolean;
  /** Label `gateway.istio.io/managed: istio.io-eastwest-controller`: tunnels of other networks come in by it (hbone-and-wds.md 1.7). */
  readonly isEastWestGateway: boolean;
  /** Why it cannot be captured as its manifest says; else empty. An enrolled pod is then refused, or goes on as it was captured before. */
  readonly fault: string;
}

/** Where the agent learns of its node's pods. */
export interface PodSource {
  /** Begins to look, where that takes time; resolves when the pods are known. `start` does it, too. */
  open(): Promise<void>;
  /** Calls `onPods` with all local pods, now (once known) and after every change. Resolves after the first call. */
  start(onPods: (pods: readonly LocalPod[]) => void): Promise<void>;
  stop(): Promise<void>;
  /** Whether a pod's traffic is truly in our hands; for those who ask the source (on Kubernetes: the redirection annotation). */
  noteCaptured(uid: string, isCaptured: boolean): void;
  /** Nothing is told or saved any more: another agent of this node does, or none. */
  stopNoting(): void;
  /** Takes back all that was told, by whichever agent of this node, and saves nothing any more. Resolves when nothing of it is left. */
  release(): Promise<void>;
  /** By source, or kind of it: since it was last seen whole, milliseconds. */
  readonly ages: ReadonlyMap<string, number>;
  /** Everything wrong right now with what it says of pods and namespaces. */
  readonly problems: readonly ManifestProblem[];
  /** What is awaited before the pods are known, in words. */
  readonly pending: readonly string[];
}

export type CaptureErrorCode =
  | 'KERNEL_TOO_OLD' // the kernel lacks something without which nothing can be captured; data lists it
  | 'NO_CGROUP2' // no cgroup v2 mount, or what was given is none
  | 'NO_HOST_NETNS' // which namespace is the host's cannot be told
  | 'NO_PODS_PARENT' // the cgroup above all pods is not there, or not clear
  | 'BPFFS_UNUSABLE' // the pin directory is not on a bpffs and none could be mounted
  | 'ABI_MISMATCH' // pinned maps or programs are of another abi.h: drain, then `culvertctl node release`
  | 'ROUTE_LOCALNET' // the pod lets 127.0.0.0/8 in from its network: a caller could pose as the agent
  | 'POD_GONE' // its process ended while its namespace was being entered
  | 'INVALID_POD' // an annotation of an enrolled pod cannot be followed, or it has no address
  | 'NO_KUBELET' // kubelet's cgroup is not found: probes could not be told from other connections of the node
  | 'AGENT_ALIVE' // a live agent uses what is to be removed
  | 'NO_SHOWN_PORT' // no port left under which an application could tell a caller's connections apart
  | 'NO_HOST_PIDS' // the agent sees pods' cgroups but not their processes
  | 'ATTACH_FAILED'; // the kernel refused a program, map or link; cause names it

/** What went wrong in agent/capture. `data` names the pod, path or program. */
export class CaptureError extends MeshError<CaptureErrorCode> {}
