import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { packageRoot } from '../../native/package-root.js';
import type { Collected } from '../support/collect-garbage.js';

/** What a program held when everything was quiet and its threads had collected their garbage. */
export interface Footprint {
  readonly program: string;
  readonly pid: number;
  /** Resident. */
  readonly rssMb: number;
  /** JavaScript objects of all threads, and what they hold outside of the heap. */
  readonly liveMb: number;
  readonly descriptors: number;
  /** Entries of the pinned maps together; 0 for a controller. */
  readonly mapEntries: number;
}

/**
 * More is a leak. Within it: pooled connections, one per worker, pod and peer; label sets of the last 15 minutes; and what a program that is still being compiled
 * gains: machine code and its feedback (live: 8 MB in 20 minutes, 9 in 40), the compiler's high-water mark in malloc's arenas, and pages that collected garbage has left in pieces (resident).
 */
const mayGrow = { rssMb: 25, liveMb: 12, descriptors: 30, mapEntries: 0 } as const;

/** V8 gives the pages back on threads of its own. */
const pagesMs = 2_000;

export interface Measured {
  readonly program: string;
  readonly pid: number;
  readonly threads: number;
  readonly mapEntries: number;
}

/**
 * Measures a program. Garbage is collected first: V8 looks at the old generation of a thread only when 8 MB have come on top of what was live (of a worker under this
 * load after some ten minutes), so without it three threads float by up to 24 MB, and how much of that a soak sees depends on when it ends.
 */
export async function footprintOf({ program, pid, threads, mapEntries }: Measured): Promise<Footprint> {
  const { liveBytes } = await collectGarbage(pid, threads);
  await delay(pagesMs);
  return {
    program,
    pid,
    rssMb: residentMb(pid),
    liveMb: Math.round(liveBytes / 1e6),
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    mapEntries,
  };
}

/** What grew more than it may, in words. */
export function growthOf(before: Footprint, after: Footprint): string[] {
  return (['rssMb', 'liveMb', 'descriptors', 'mapEntries'] as const).flatMap((what) =>
    after[what] - before[what] > mayGrow[what]
      ? [`${after.program}: ${what} ${before[what]} → ${after[what]}, by more than ${mayGrow[what]}`]
      : [],
  );
}

/** In MB of 10^6 bytes. */
export function residentMb(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Math.round((Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) * 1024) / 1e6);
}

async function collectGarbage(pid: number, threads: number): Promise<Collected> {
  const program = join(packageRoot(), 'dist/test/support/collect-garbage.js');
  const node = [process.execPath, '--experimental-websocket', '--no-warnings', program];
  const command = ['-t', String(pid), '-n', ...node, String(pid), String(threads)];
  const { stdout } = await promisify(execFile)('nsenter', command);
  return JSON.parse(stdout) as Collected;
}
