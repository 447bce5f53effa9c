/**
 * What is seen of pods in the cgroup tree: that a pod's cgroup exists, and which network namespace its processes are in. inotify on
 * cgroup directories tells new pods, new containers and the first process at once (kernfs reports `cgroup.events` to its directory);
 * a slow poll catches the rest. A process enters its cgroup before it enters its namespace (a container runtime does, in the host's), so a
 * pod that has processes but no namespace of its own yet is looked at again after 2, 4, 8, … ms.
 */
import { type FSWatcher, readFileSync, readlinkSync, watch } from 'node:fs';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import { isPopulated, listPodCgroups, type PodCgroup, processesOf } from './cgroups.js';
import { CaptureError } from './types.js';

export interface SeenNamespace {
  /** A process that was in it when last looked at. */
  readonly pid: number;
  /** Inode of the namespace file: `net:[<inode>]`. */
  readonly inode: number;
}

export interface PodSighting {
  readonly cgroup: PodCgroup;
  /** Null: no process has a namespace of its own (or nobody asked: see `follow`). */
  readonly namespace: SeenNamespace | null;
}

export interface PodSightingsOptions {
  readonly podsParent: string;
  /** Inodes of namespaces that are no pod's: the host's, init's, the agent's. Processes pass through them on their way into their pod's. */
  readonly foreignNamespaces: ReadonlySet<number>;
  readonly pollIntervalMs: number;
  /** How long a pod whose last process has ended still counts as being in its namespace: its sockets may have bytes to send. */
  readonly emptyPodLingerMs: number;
}

export interface PodSightingsDeps {
  readonly log: Log;
  /** The cgroup or the namespace of a pod has come, gone or been replaced. */
  readonly onChange: (uid: string) => void;
  /** Whether the namespace of this process may be the pod's. */
  readonly isNamespaceOf: (uid: string, pid: number) => boolean;
}

interface Followed {
  sighting: PodSighting;
  watcher: FSWatcher | null;
  retry: NodeJS.Timeout | null;
  retryDelayMs: number;
  emptySinceMs: number;
}

const firstRetryMs = 2;
const maxRetryMs = 250;

export class PodSightings {
  readonly #options: PodSightingsOptions;
  readonly #deps: PodSightingsDeps;
  readonly #directoryWatchers = new Map<string, FSWatcher>();
  readonly #followed = new Map<string, Followed>();
  #cgroups = new Map<string, PodCgroup>();
  #poll: NodeJS.Timeout | null = null;
  #scanQueued: NodeJS.Immediate | null = null;
  #foreignPidsReported = false;
  #lastTrouble = '';

  constructor(options: PodSightingsOptions, deps: PodSightingsDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Looks once at everything, then goes on by itself. */
  start(): void {
    this.#scan();
    this.#poll = setInterval(() => {
      this.#scan();
      for (const uid of [...this.#followed.keys()]) this.#verify(uid);
    }, this.#options.pollIntervalMs);
  }

  stop(): void {
    if (this.#poll !== null) clearInterval(this.#poll);
    if (this.#scanQueued !== null) clearImmediate(this.#scanQueued);
    for (const watcher of this.#directoryWatchers.values()) watcher.close();
    this.#directoryWatchers.clear();
    for (const uid of [...this.#followed.keys()]) this.unfollow(uid);
  }

  /** Every pod cgroup there is, known or not. */
  get cgroups(): ReadonlyMap<string, PodCgroup> {
    return this.#cgroups;
  }

  /** Null: no cgroup of that pod. */
  sightingOf(uid: string): PodSighting | null {
    const followed = this.#followed.get(uid);
    if (followed !== undefined) return followed.sighting;
    const cgroup = this.#cgroups.get(uid);
    return cgroup === undefined ? null : { cgroup, namespace: null };
  }

  /** From now on the pod's namespace is looked for, too. Its first state is in `sightingOf` at once; `onChange` is not called for it. */
  follow(uid: string): void {
    const cgroup = this.#cgroups.get(uid);
    if (cgroup === undefined || this.#followed.has(uid)) return;
    const followed: Followed = {
      sighting: { cgroup, namespace: null },
      watcher: this.#watch(cgroup.path, () => this.#examine(uid)),
      retry: null,
      retryDelayMs: firstRetryMs,
      emptySinceMs: 0,
    };
    this.#followed.set(uid, followed);
    this.#look(uid, followed);
  }

  unfollow(uid: string): void {
    const followed = this.#followed.get(uid);
    if (followed === undefined) return;
    followed.watcher?.close();
    if (followed.retry !== null) clearTimeout(followed.retry);
    this.#followed.delete(uid);
  }

  #queueScan(): void {
    this.#scanQueued ??= setImmediate(() => {
      this.#scanQueued = null;
      this.#scan();
    });
  }

  #scan(): void {
    const listed = this.#attempt(() => listPodCgroups(this.#options.podsParent));
    if (listed === null) return;
    const { pods, directories } = listed;
    const newDirectories = this.#watchDirectories(directories);
    const before = this.#cgroups;
    this.#cgroups = pods;
    for (const uid of new Set([...before.keys(), ...pods.keys()])) {
      if (before.get(uid)?.id === pods.get(uid)?.id) continue;
      this.unfollow(uid); // its old cgroup; `onChange` may follow the new one
      this.#deps.onChange(uid);
    }
    // A directory may have got pods between its listing and its watch.
    if (newDirectories) this.#queueScan();
  }

  #watchDirectories(directories: readonly string[]): boolean {
    let added = false;
    for (const [path, watcher] of this.#directoryWatchers) {
      if (directories.includes(path)) continue;
      watcher.close();
      this.#directoryWatchers.delete(path);
    }
    for (const path of directories) {
      if (this.#directoryWatchers.has(path)) continue;
      const watcher = this.#watch(path, () => this.#queueScan());
      if (watcher === null) continue;
      this.#directoryWatchers.set(path, watcher);
      added = true;
    }
    return added;
  }

  #watch(path: string, onEvent: () => void): FSWatcher | null {
    try {
      const watcher = watch(path, onEvent);
      watcher.on('error', () => watcher.close());
      return watcher;
    } catch (error) {
      const gone = (error as NodeJS.ErrnoException).code === 'ENOENT';
      if (!gone)
        this.#deps.log.warn(
          { path, error: String(error) },
          'cannot watch a cgroup: changes are seen at the next poll',
        );
      return null;
    }
  }

  /** Cheap: one readlink, unless the process that was seen has left. */
  #verify(uid: string): void {
    const seen = this.#followed.get(uid)?.sighting.namespace;
    if (seen && tryNamespaceInode(seen.pid) === seen.inode) return;
    this.#examine(uid);
  }

  #examine(uid: string): void {
    const followed = this.#followed.get(uid);
    if (followed === undefined) return;
    const before = followed.sighting.namespace;
    this.#look(uid, followed);
    if (followed.sighting.namespace?.inode !== before?.inode) this.#deps.onChange(uid);
  }

  #look(uid: string, followed: Followed): void {
    const { cgroup, namespace: before } = followed.sighting;
    // What cannot be looked at (null) is as it was.
    const seen = this.#attempt(() => ({ namespace: this.#namespaceOf(cgroup, before) }));
    const found = seen === null ? before : seen.namespace;
    if (followed.retry !== null) clearTimeout(followed.retry);
    followed.retry = null;
    if (found !== null) {
      followed.emptySinceMs = 0;
      followed.retryDelayMs = firstRetryMs;
      followed.sighting = { cgroup, namespace: found };
      return;
    }
    if (before !== null && this.#lingers(followed)) {
      this.#retry(uid, followed);
      return;
    }
    followed.sighting = { cgroup, namespace: null };
    if (seen === null || isPopulated(cgroup.path)) this.#retry(uid, followed);
    else followed.retryDelayMs = firstRetryMs;
  }

  #lingers(followed: Followed): boolean {
    if (followed.emptySinceMs === 0) followed.emptySinceMs = performance.now();
    return performance.now() - followed.emptySinceMs < this.#options.emptyPodLingerMs;
  }

  #retry(uid: string, followed: Followed): void {
    followed.retry = setTimeout(() => this.#examine(uid), followed.retryDelayMs);
    followed.retryDelayMs = Math.min(followed.retryDelayMs * 2, maxRetryMs);
  }

  /** The namespace seen before if any process is still in it, else that of the oldest process whose namespace may be the pod's. */
  #namespaceOf(cgroup: PodCgroup, before: SeenNamespace | null): SeenNamespace | null {
    let found: SeenNamespace | null = null;
    let foundStart = Number.POSITIVE_INFINITY;
    for (const pid of processesOf(cgroup.path)) {
      if (pid === 0) this.#reportForeignPids(cgroup);
      const inode = tryNamespaceInode(pid);
      if (inode === null || this.#options.foreignNamespaces.has(inode)) continue;
      if (inode === before?.inode) return { pid, inode };
      const start = tryStartTime(pid);
      if (start === null || start >= foundStart || !this.#deps.isNamespaceOf(cgroup.uid, pid)) continue;
      found = { pid, inode };
      foundStart = start;
    }
    return found;
  }

  /** Null: it failed (no descriptor left, say), which is told once. */
  #attempt<T>(look: () => T): T | null {
    try {
      const result = look();
      this.#lastTrouble = '';
      return result;
    } catch (error) {
      const trouble = messageOf(error);
      if (trouble !== this.#lastTrouble)
        this.#deps.log.error({ error: trouble }, 'cgroups cannot be read: pods count as they were');
      this.#lastTrouble = trouble;
      return null;
    }
  }

  #reportForeignPids(cgroup: PodCgroup): void {
    if (this.#foreignPidsReported) return;
    this.#foreignPidsReported = true;
    const error = new CaptureError(
      'NO_HOST_PIDS',
      'pods have processes outside our PID namespace: the agent needs hostPID',
      {
        cgroup: cgroup.path,
      },
    );
    this.#deps.log.error({ code: error.code, ...error.data }, error.message);
  }
}

/** Inode of the network namespace a process is in; null: no such process any more. */
export function tryNamespaceInode(pid: number): number | null {
  try {
    return Number(/^net:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[1] ?? Number.NaN) || null;
  } catch {
    return null;
  }
}

/** Field 22 of /proc/<pid>/stat (clock ticks since boot); the name before it may hold blanks and parentheses. */
function tryStartTime(pid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  } catch {
    return null;
  }
}
