/**
 * Which cgroup is kubelet's: its probes reach applications without the mesh, nobody else's connections do. So it must be kubelet's alone:
 * found by the process, of root, outside of all pods and in the host's network namespace, where a pod's process could only call itself so.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { findCgroupOf, processesOf } from './cgroups.js';
import { tryNamespaceInode } from './pod-sightings.js';
import { CaptureError } from './types.js';

/** As distributions name the program that has kubelet in it. */
const kubeletNames: readonly string[] = ['kubelet', 'kubelite', 'k3s-server', 'k3s-agent'];

export interface KubeletSearch {
  /** Absolute, or below the root; 'none': there is no kubelet; null: found. */
  readonly given: string | null;
  readonly cgroupRoot: string;
  readonly podsParent: string;
  /** A file that is the host's network namespace. */
  readonly hostNetns: string;
}

/** Null: there is none, by option. Throws NO_KUBELET. */
export function findKubeletCgroup(search: KubeletSearch): string | null {
  const { given, cgroupRoot } = search;
  if (given === 'none') return null;
  if (given !== null) {
    const path = given.startsWith(`${cgroupRoot}/`) ? given : join(cgroupRoot, given);
    if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) throw noKubelet(`${path} does not exist`);
    return checked(path, search);
  }
  const found = new Set(kubeletProcesses(search).map((pid) => findCgroupOf(cgroupRoot, pid)));
  found.delete(null);
  if (found.size === 1) return checked([...found][0]!, search);
  throw noKubelet(
    found.size === 0
      ? `no process named ${kubeletNames.join(', ')} in the host's network namespace`
      : `several cgroups could be kubelet's (${[...found].join(', ')})`,
  );
}

function kubeletProcesses({ hostNetns, podsParent }: KubeletSearch): number[] {
  const host = statSync(hostNetns).ino;
  const inPods = new Set(processesOf(podsParent));
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && kubeletNames.includes(commandOf(name)) && isOurUsers(name))
    .map(Number)
    .filter((pid) => !inPods.has(pid) && tryNamespaceInode(pid) === host);
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return ''; // it has ended
  }
}

/** kubelet is root's, as we are; any user of the node can call a process so. */
function isOurUsers(pid: string): boolean {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid === process.geteuid!();
}

/** A cgroup that has pods below it would let their host-network processes in as kubelet. */
function checked(path: string, { cgroupRoot, podsParent }: KubeletSearch): string {
  const isAbove = path === cgroupRoot || path === podsParent || podsParent.startsWith(`${path}/`);
  if (isAbove || path.startsWith(`${podsParent}/`))
    throw noKubelet(`${path} is not kubelet's alone: there are pods in it`);
  return path;
}

function noKubelet(reason: string): CaptureError {
  return new CaptureError('NO_KUBELET', `kubelet's cgroup is not known: ${reason}`, { reason });
}
