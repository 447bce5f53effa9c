/**
 * Where pods are in the cgroup v2 tree, by the names that kubelet gives them with either cgroup driver:
 *   cgroupfs  kubepods/pod<uid>, kubepods/burstable/pod<uid>, kubepods/besteffort/pod<uid>
 *   systemd   kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid, - as _>.slice
 * and the same below anything (`kubelet.slice/kubelet-kubepods.slice/…`, a test's root).
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import { cgroupId, cgroupRoot } from '../../native/net/index.js';
import { CaptureError } from './types.js';

/** A pod's cgroup. `id` is what bpf_*_cgroup_id gives: the directory's inode number. */
export interface PodCgroup {
  readonly uid: string;
  readonly path: string;
  readonly id: bigint;
}

const parentSearchDepth = 3;

/** The pod uid in the name of a pod's cgroup, or null for any other name. */
export function tryPodUid(directoryName: string): string | null {
  const systemd = /^(?:.+-)?pod([^/]+)\.slice$/.exec(directoryName);
  if (systemd !== null) return systemd[1]!.replaceAll('_', '-');
  return /^pod([A-Za-z0-9_-]+)$/.exec(directoryName)?.[1] ?? null;
}

/** True for the directories between the parent and a pod: the QoS classes. */
export function isQosDirectory(directoryName: string): boolean {
  return /^(?:burstable|besteffort|guaranteed|.+-(?:burstable|besteffort)\.slice)$/.test(directoryName);
}

/** Where cgroup v2 is mounted: `given`, or found (in the hybrid layout not at /sys/fs/cgroup). Throws NO_CGROUP2. */
export function findCgroupRoot(given: string | null): string {
  try {
    const root = given ?? cgroupRoot();
    cgroupId(root);
    return root;
  } catch (error) {
    throw new CaptureError('NO_CGROUP2', messageOf(error), { root: given }, error);
  }
}

/**
 * The parent of all pod cgroups: `given` (absolute, or below `root`), or the one directory named kubepods near the root. Of several the
 * one that has processes counts: a change of kubelet's cgroup driver leaves the other behind. Throws NO_PODS_PARENT.
 */
export function findPodsParent(root: string, given: string | null): string {
  if (given !== null) {
    const path = given.startsWith(`${root}/`) ? given : join(root, given);
    if (isDirectory(path)) return path;
    throw new CaptureError('NO_PODS_PARENT', `the parent of the pods' cgroups, ${path}, does not exist`, {
      path,
    });
  }
  const found: string[] = [];
  searchParents(root, parentSearchDepth, found);
  const inUse = found.length > 1 ? found.filter(isPopulated) : found;
  if (inUse.length === 1) return inUse[0]!;
  const reason =
    inUse.length === 0
      ? `no cgroup named kubepods or kubepods.slice in use under ${root}: make it, or name the parent of all pods' cgroups by --pods-cgroup`
      : `several cgroups could be the pods' parent (${inUse.join(', ')}): say which by --pods-cgroup`;
  throw new CaptureError('NO_PODS_PARENT', reason, { root, found });
}

function searchParents(directory: string, depth: number, found: string[]): void {
  for (const name of subdirectories(directory)) {
    const path = join(directory, name);
    if (/^(?:.+-)?kubepods(?:\.slice)?$/.test(name)) found.push(path);
    else if (depth > 1) searchParents(path, depth - 1, found);
  }
}

/** All pod cgroups there are below `parent`, keyed by uid, and the directories in which new ones appear. Throws where one cannot be read. */
export function listPodCgroups(parent: string): { pods: Map<string, PodCgroup>; directories: string[] } {
  const pods = new Map<string, PodCgroup>();
  const directories = [parent];
  for (const name of subdirectories(parent)) {
    if (isQosDirectory(name)) directories.push(join(parent, name));
  }
  for (const directory of directories) {
    for (const name of subdirectories(directory)) {
      const uid = tryPodUid(name);
      const path = join(directory, name);
      const id = uid === null ? null : tryCgroupId(path);
      if (uid !== null && id !== null) pods.set(uid, { uid, path, id });
    }
  }
  return { pods, directories };
}

/** Null: gone. */
export function tryCgroupId(path: string): bigint | null {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino ?? null;
}

/** The pod that a process is in, looked for among the pods' processes: its own /proc/…/cgroup says nothing in a cgroup namespace of its own. */
export function podOfProcess(parent: string, pid: number): PodCgroup | null {
  for (const pod of listPodCgroups(parent).pods.values()) if (processesOf(pod.path).includes(pid)) return pod;
  return null;
}

/** Path of the cgroup v2 group of this process, below `root`; `root` itself in a cgroup namespace of its own. */
export function ownCgroup(root: string): string {
  return join(root, cgroupLineOf('/proc/self/cgroup'));
}

function cgroupLineOf(file: string): string {
  try {
    const lines = readFileSync(file, 'utf8').split('\n');
    return lines.find((entry) => entry.startsWith('0::'))?.slice(3) ?? '/';
  } catch {
    return '/'; // the process has ended
  }
}

/** Path of the cgroup that a process is in, below `root`; null: not to be found. In a cgroup namespace of our own /proc tells another path. */
export function findCgroupOf(root: string, pid: number): string | null {
  const path = join(root, cgroupLineOf(`/proc/${pid}/cgroup`));
  if (directProcesses(path).includes(pid)) return path;
  return searchProcess(root, pid);
}

function searchProcess(directory: string, pid: number): string | null {
  if (directProcesses(directory).includes(pid)) return directory;
  for (const name of subdirectories(directory)) {
    const found = searchProcess(join(directory, name), pid);
    if (found !== null) return found;
  }
  return null;
}

/** Process ids in a cgroup and everything below it. A 0 is a process outside our PID namespace. Throws where that cannot be told. */
export function processesOf(cgroup: string): number[] {
  const pids = directProcesses(cgroup);
  for (const name of subdirectories(cgroup)) pids.push(...processesOf(join(cgroup, name)));
  return pids;
}

function directProcesses(cgroup: string): number[] {
  try {
    const lines = readFileSync(join(cgroup, 'cgroup.procs'), 'utf8').split('\n');
    return lines.filter((line) => line !== '').map(Number);
  } catch (error) {
    // Of a threaded one the processes stand in the parent.
    if (!isGone(error) && codeOf(error) !== 'EOPNOTSUPP') throw error;
    return [];
  }
}

export function isPopulated(cgroup: string): boolean {
  try {
    return readFileSync(join(cgroup, 'cgroup.events'), 'utf8').includes('populated 1');
  } catch {
    return false;
  }
}

function subdirectories(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (!isGone(error)) throw error;
    return [];
  }
}

/** Of a cgroup. Any other error (no descriptor left) must not look as if pods had ended. */
function isGone(error: unknown): boolean {
  return ['ENOENT', 'ENODEV', 'ENOTDIR'].includes(codeOf(error) ?? '');
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
