/** Which processes use pinned maps: an agent that lives has them open, whatever it is called and whatever version it is. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Ids of processes, other than our own, that have one of these maps open. Needs the host's PID namespace to see them all. */
export function usersOfMaps(mapIds: ReadonlySet<number>): number[] {
  if (mapIds.size === 0) return [];
  return entriesOf('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid && hasMap(pid, mapIds));
}

function hasMap(pid: number, mapIds: ReadonlySet<number>): boolean {
  return entriesOf(`/proc/${pid}/fd`).some((fd) => {
    try {
      if (!readlinkSync(`/proc/${pid}/fd/${fd}`).includes('bpf-map')) return false;
      const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
      return mapIds.has(Number(/^map_id:\s*(\d+)$/m.exec(info)?.[1]));
    } catch {
      return false; // closed meanwhile
    }
  });
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // it has ended
  }
}
