import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../../native/package-root.js';
import { encodePushes } from './scale-push.js';
import { type ScaleOptions, scaleSnapshot } from './scale-state.js';

/** What a large mesh costs an agent of one worker, the default; each further one has its own copy: 40 MB. */
export interface ScaleFigures {
  /** From the bytes of the pushes in main's hands until every worker has it in force. */
  readonly snapshotMs: number;
  /** Longest that a worker was away from its connections meanwhile. */
  readonly longestTurnMs: number;
  /** The slowest of 50 changes of one workload, likewise. */
  readonly updateMs: number;
  readonly rssMb: number;
  /** Look-up of a VIP and choice of its endpoint; CPU time, as is the next. */
  readonly routeUs: number;
  readonly authorizeUs: number;
}

export const fullScale: ScaleOptions = { workloads: 10_000, services: 2_000, policies: 500 };

/** How README starts an agent. */
const smallHeap = '--max-semi-space-size=2';

/** In a process of its own, whose memory is nobody else's. */
export async function measureScale(options: ScaleOptions = fullScale): Promise<ScaleFigures> {
  const program = join(packageRoot(), 'dist/test/bench/scale-main.js');
  const directory = mkdtempSync(join(tmpdir(), 'culvert-scale-'));
  try {
    const files = encodePushes(scaleSnapshot(options)).map((bytes, index) => {
      const file = join(directory, String(index));
      writeFileSync(file, bytes);
      return file;
    });
    const command = [smallHeap, program, JSON.stringify(options), ...files];
    const { stdout } = await promisify(execFile)('node', command, { timeout: 60_000 });
    return JSON.parse(stdout) as ScaleFigures;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

export function formatScale(figures: ScaleFigures, { workloads, services, policies }: ScaleOptions): string {
  const rows: readonly (readonly [string, number, string, string])[] = [
    ['snapshot in force in all workers', figures.snapshotMs, 'ms', '< 2000'],
    ['longest turn of a worker meanwhile', figures.longestTurnMs, 'ms', '< 10'],
    ['one workload changed, the slowest of 50', figures.updateMs, 'ms', '< 20'],
    ['look-up and choice of the endpoint', figures.routeUs, 'us', ''],
    ['authorization', figures.authorizeUs, 'us', ''],
    ['both together', figures.routeUs + figures.authorizeUs, 'us', '< 10'],
    ['resident memory', figures.rssMb, 'MB', '< 200'],
  ];
  const lines = rows.map(
    ([what, value, unit, target]) =>
      `  ${what.padEnd(42)}${value.toFixed(unit === 'us' ? 2 : 0).padStart(8)} ${unit}  ${target}`,
  );
  return [`Scale: ${workloads} workloads, ${services} services, ${policies} policies`, ...lines].join('\n');
}
