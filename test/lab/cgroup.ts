import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Names that kubelet's two cgroup drivers give to the same thing. */
export type CgroupDriver = 'systemd' | 'cgroupfs';
export type QosClass = 'guaranteed' | 'burstable' | 'besteffort';

/** Mount point of the cgroup v2 hierarchy (`/sys/fs/cgroup`, or `…/unified` on hybrid machines). Throws where there is none. */
export function findCgroup2(): string {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [mount, fs] = line.split(' - ');
    if (fs?.startsWith('cgroup2 ')) return mount!.split(' ')[4]!;
  }
  throw new Error('no cgroup2 file system is mounted on this machine; the lab needs one');
}

/** Folder of all pods of a node, below the node's own cgroup. */
export function kubepodsName(driver: CgroupDriver): string {
  return driver === 'systemd' ? 'kubepods.slice' : 'kubepods';
}

/** A pod's cgroup, relative to the node's cgroup, as kubelet names it. */
export function podCgroupName(driver: CgroupDriver, qos: QosClass, uid: string): string {
  if (driver === 'cgroupfs') return join('kubepods', qos === 'guaranteed' ? '' : qos, `pod${uid}`);
  const slice = qos === 'guaranteed' ? 'kubepods' : `kubepods-${qos}`;
  const parent = qos === 'guaranteed' ? 'kubepods.slice' : join('kubepods.slice', `${slice}.slice`);
  return join(parent, `${slice}-pod${uid.replaceAll('-', '_')}.slice`);
}

/** A container's cgroup, relative to its pod's. `id` is 64 hex digits. */
export function containerCgroupName(driver: CgroupDriver, id: string): string {
  return driver === 'systemd' ? `cri-containerd-${id}.scope` : id;
}

/** Makes the cgroup and its parents; returns its path. */
export function makeCgroup(path: string): string {
  mkdirSync(path, { recursive: true });
  return path;
}

/** Process ids in the cgroup and all below it. */
export function processesIn(path: string): number[] {
  if (!existsSync(path)) return [];
  const own = readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
  return [...own, ...childrenOf(path).flatMap(processesIn)];
}

/** Kills every process in the cgroup tree; with `cgroup.kill` (5.14) nothing can fork its way out. */
export function killCgroup(path: string): void {
  if (!existsSync(path)) return;
  if (existsSync(join(path, 'cgroup.kill'))) {
    writeFileSync(join(path, 'cgroup.kill'), '1');
    return;
  }
  for (const pid of processesIn(path)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // Gone since it was read.
    }
  }
}

/** Removes an empty cgroup tree, children first; the kernel may need a moment after the last process, so it tries until `timeoutMs`. */
export function removeCgroup(path: string, timeoutMs = 5000): void {
  const deadline = performance.now() + timeoutMs;
  while (existsSync(path)) {
    try {
      for (const child of childrenOf(path)) removeCgroup(child, Math.max(0, deadline - performance.now()));
      rmdirSync(path);
      return;
    } catch (thrown) {
      if (performance.now() > deadline) throw thrown;
      killCgroup(path);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
  }
}

function childrenOf(path: string): string[] {
  return readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(path, entry.name));
}
