import { MeshError } from '../../mesh/common/errors.js';

export type CaptureErrorCode =
  | 'NO_CGROUP2' // no cgroup v2 mount, or what was given is none
  | 'NO_PODS_PARENT' // the cgroup above all pods is not there, or not clear
  | 'BPFFS_UNUSABLE' // the pin directory is not on a bpffs and none could be mounted
  | 'ABI_MISMATCH' // pinned maps or programs are of another abi.h: drain, then `clean`
  | 'ROUTE_LOCALNET' // the pod lets 127.0.0.0/8 in from its network: a caller could pose as the agent
  | 'POD_GONE' // its process ended while its namespace was being entered
  | 'NO_SHOWN_PORT' // no port left under which an application could tell a caller's connections apart
  | 'NO_HOST_PIDS' // the agent sees pods' cgroups but not their processes
  | 'ATTACH_FAILED'; // the kernel refused a program, map or link; cause names it

/** What went wrong in agent/capture. `data` names the pod, path or program. */
export class CaptureError extends MeshError<CaptureErrorCode> {}
