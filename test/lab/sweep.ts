import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { findCgroup2, killCgroup, removeCgroup } from './cgroup.js';

/** Where every lab keeps its manifests, captures and mounts: `<STATE>/<id>`. */
const STATE = '/run/culvert-lab';

/** Names of everything a lab leaves on the machine; a leftover is known by its name. */
export interface LabNames {
  readonly id: string;
  readonly state: string;
  readonly cgroup: string;
  /** Prefix of its network namespaces. */
  readonly netns: string;
}

export function labNames(id: string): LabNames {
  return {
    id,
    state: join(STATE, id),
    cgroup: join(findCgroup2(), `culvert-lab-${id}`),
    netns: `cv${id}-`,
  };
}

/** Takes the id for this process; false where another lab has it. */
export function claimLab(names: LabNames): boolean {
  mkdirSync(STATE, { recursive: true });
  try {
    mkdirSync(names.state);
  } catch {
    return false;
  }
  writeFileSync(join(names.state, 'owner'), `${process.pid} ${startTimeOf(process.pid)}`);
  return true;
}

/** Removes everything of one lab: its processes, mounts, namespaces, cgroups, files. Synchronous, so that it also runs while a process exits. */
export function removeLab(names: LabNames): void {
  if (existsSync(names.cgroup)) {
    killCgroup(names.cgroup);
    removeCgroup(names.cgroup);
  }
  for (const mount of mountsBelow(names.state).reverse()) execFileSync('umount', ['-l', mount]);
  if (existsSync('/run/netns')) {
    const left = readdirSync('/run/netns').filter((name) => name.startsWith(names.netns));
    if (left.length > 0)
      execFileSync('ip', ['-batch', '-'], { input: left.map((name) => `netns del ${name}\n`).join('') });
  }
  rmSync(names.state, { recursive: true, force: true });
}

/** Removes the labs whose owner is gone, or every lab. Returns the ids of those removed. */
export function sweep(which: 'abandoned' | 'all' = 'abandoned'): string[] {
  if (!existsSync(STATE)) return [];
  const removed = readdirSync(STATE).filter((id) => which === 'all' || !ownerLives(id));
  for (const id of removed) removeLab(labNames(id));
  return removed;
}

function ownerLives(id: string): boolean {
  try {
    const [pid, startTime] = readFileSync(join(STATE, id, 'owner'), 'utf8').split(' ');
    return startTimeOf(Number(pid)) === startTime;
  } catch {
    return false;
  }
}

/** Field 22 of /proc/<pid>/stat: with it a pid used again is not taken for the owner. */
function startTimeOf(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]!;
}

function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((mount) => mount.startsWith(`${folder}/`));
}

// As a program: `node sweep.js ID` removes one lab (the reaper does so), `node sweep.js` every lab of the machine (`npm run clean`).
if (basename(process.argv[1] ?? '') === 'sweep.js') {
  const id = process.argv[2];
  if (id === undefined) process.stdout.write(`labs removed: ${sweep('all').join(', ') || 'none'}\n`);
  else removeLab(labNames(id));
}
