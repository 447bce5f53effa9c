/**
 * Which file is the host's network namespace, whose connections are always plain. A pod's must never be taken for it: where nothing tells
 * for sure, the agent does not start.
 */
import { closeSync, existsSync, openSync } from 'node:fs';
import { messageOf } from '../../mesh/common/errors.js';
import { listPodCgroups, processesOf } from './cgroups.js';
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

function noHostNetns(reason: string): CaptureError {
  return new CaptureError(
    'NO_HOST_NETNS',
    `which network namespace is the host's cannot be told (${reason}): say it`,
    {
      reason,
    },
  );
}
