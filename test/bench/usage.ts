import { readdirSync, readFileSync } from 'node:fs';

/** Memory in MB (10^6 bytes). */
export interface Memory {
  /** Proportional set size: shared pages count by their share. */
  readonly pssMb: number;
  /** Pages that nobody else maps. */
  readonly privateMb: number;
}

/** The processes and all their descendants. */
export function processTree(pids: readonly number[]): number[] {
  return pids.flatMap((pid) => [pid, ...processTree(childrenOf(pid))]);
}

/** CPU seconds of the processes so far, user and system, all threads. Resolution: 10 ms a process. */
export function cpuSecondsOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuTicksOf(pid), 0) / 100; // USER_HZ is 100 on every Linux.
}

/** Memory of the processes together. */
export function memoryOf(pids: readonly number[]): Memory {
  let pssMb = 0;
  let privateMb = 0;
  for (const pid of pids) {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    const megabytes = (field: string): number =>
      (Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0) * 1024) / 1e6;
    pssMb += megabytes('Pss');
    privateMb += megabytes('Private_Clean') + megabytes('Private_Dirty');
  }
  return { pssMb, privateMb };
}

function cpuTicksOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

/** CPU time of a process so far, exactly: of its main thread, and of all that live. */
export function threadsCpuMs(pid: number): { readonly main: number; readonly all: number } {
  const cpuMs = (task: string) =>
    Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]) / 1e6;
  const all = readdirSync(`/proc/${pid}/task`).reduce((sum, task) => sum + cpuMs(task), 0);
  return { main: cpuMs(String(pid)), all };
}

/** Time that this thread has had of a CPU: what others on the machine do is not in it. */
export function threadCpuMs(): number {
  return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e6;
}
