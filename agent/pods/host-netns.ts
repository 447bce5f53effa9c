/**
 * Which file is the host's network namespace, whose connections are always plain. A pod's must never be taken for it: where nothing tells
 * for sure, the agent does not start.
 */
import { closeSync, existsSync, openSync, statSync } from 'node:fs';
import { messageOf } from '../../mesh/common/errors.js';
import {
  findCgroupRoot,
  findPodsParent,
  listPodCgroups,
  type PodCgroup,
  podOfProcess,
  processesOf,
} from './cgroups.js';
import { tryNamespaceInode } from './pod-sightings.js';
import { CaptureError } from './types.js';

/** What can be seen of the machine. */
export interface HostFacts {
  /** Null: the file can be opened; else why not. */
  readonly faultOf: (path: string) => string | null;
  /** Process 1, as we see it, is in a pod: without hostPID it is our own container's. */
  readonly isInitOfPod: () => boolean;
  /** Our own namespace is the machine's first one. */
  readonly isOwnInitial: () => boolean;
}

const initNetns = '/proc/1/ns/net';
const ownNetns = '/proc/self/ns/net';

/** `given`, or that of process 1, or (where that may not be opened, as in some virtual machines) our own if it is the machine's first. Throws NO_HOST_NETNS. */
export function findHostNetns(given: string | null, facts: HostFacts): string {
  const fault = facts.faultOf(given ?? initNetns);
  if (given !== null) {
    if (fault === null) return given;
    throw noHostNetns(`${given}: ${fault}`);
  }
  if (facts.isInitOfPod()) throw noHostNetns(`process 1 is in a pod: the agent needs hostPID`);
  if (fault === null) return initNetns;
  if (facts.isOwnInitial()) return ownNetns;
  throw noHostNetns(`${initNetns}: ${fault}, and our own is not the machine's first`);
}

export function hostFacts(podsParent: string): HostFacts {
  return {
    faultOf: (path) => {
      try {
        closeSync(openSync(path, 'r'));
        return null;
      } catch (error) {
        return messageOf(error);
      }
    },
    isInitOfPod: () =>
      [...listPodCgroups(podsParent).pods.values()].some(({ path }) => processesOf(path).includes(1)),
    // A setting that the kernel shows in its first network namespace only.
    isOwnInitial: () => existsSync('/proc/sys/net/core/netdev_budget'),
  };
}

/** Where on this machine we are. */
export interface NodePlace {
  readonly cgroupRoot: string;
  readonly podsParent: string;
  readonly hostNetns: string;
  /** Null: we run in no pod. */
  readonly agentPod: PodCgroup | null;
}

/** Null: found. Throws NO_CGROUP2, NO_PODS_PARENT, NO_HOST_NETNS. */
export function findPlace(given: {
  readonly cgroupRoot: string | null;
  readonly podsParent: string | null;
  readonly hostNetns: string | null;
}): NodePlace {
  const cgroupRoot = findCgroupRoot(given.cgroupRoot);
  const podsParent = findPodsParent(cgroupRoot, given.podsParent);
  const hostNetns = findHostNetns(given.hostNetns, hostFacts(podsParent));
  return { cgroupRoot, podsParent, hostNetns, agentPod: podOfProcess(podsParent, process.pid) };
}

/** Processes pass through these on their way into their pod's. */
export function foreignNamespaces(hostNetns: string): ReadonlySet<number> {
  const inodes = [statSync(hostNetns).ino, tryNamespaceInode(1), tryNamespaceInode(process.pid)];
  return new Set(inodes.filter((inode) => inode !== null));
}

function noHostNetns(reason: string): CaptureError {
  return new CaptureError(
    'NO_HOST_NETNS',
    `which network namespace is the host's cannot be told (${reason}): say it by --host-netns`,
    {
      reason,
    },
  );
}
