import { readFileSync, statfsSync, statSync } from 'node:fs';
import { relative } from 'node:path';
import { NativeError } from '../errors.js';

const CGROUP2_MAGIC = 0x63677270;

/** Where cgroup2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified beside version 1. Throws CALL_FAILED where it is not. */
export function cgroupRoot(mountinfo: string = readFileSync('/proc/self/mountinfo', 'utf8')): string {
  for (const line of mountinfo.split('\n')) {
    const [mount, source] = line.split(' - ');
    if (source?.startsWith('cgroup2 ')) return mount!.split(' ')[4]!;
  }
  throw new NativeError('CALL_FAILED', 'no cgroup2 is mounted (mount -t cgroup2 none /sys/fs/cgroup)');
}

/** What BPF calls a cgroup directory. Throws CALL_FAILED for a directory outside cgroup2. */
export function cgroupId(path: string): bigint {
  if (statfsSync(path).type !== CGROUP2_MAGIC) {
    throw new NativeError('CALL_FAILED', `${path} is not a cgroup of version 2`, { path });
  }
  return statSync(path, { bigint: true }).ino;
}

/** Levels below the root of cgroup2 (0: the root itself), as bpf_get_current_ancestor_cgroup_id counts them. */
export function cgroupLevel(path: string, root: string = cgroupRoot()): number {
  const inside = relative(root, path);
  if (inside.startsWith('..'))
    throw new NativeError('CALL_FAILED', `${path} is not below ${root}`, { path, root });
  return inside === '' ? 0 : inside.split('/').length;
}
