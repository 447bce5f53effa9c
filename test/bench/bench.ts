import { Lab } from '../lab/index.js';
import { type Bed, makeBed, type PeerName, type RunningPeer } from './bed.js';
import { peers } from './peers/index.js';
import { Report, type ReportRow } from './report.js';
import { LOAD_ROWS, measureLoad, measureMemory, settledMemory } from './rows.js';
import { judge, type Verdict } from './targets.js';

export interface BenchOptions {
  readonly peers: readonly PeerName[];
  readonly rounds: number;
  /** Seconds of load per reading. */
  readonly secs: number;
}

export interface BenchResult {
  readonly options: BenchOptions;
  readonly rows: readonly ReportRow[];
  /** PSS of each running pair, MB, after each round of all load rows: what grows here leaks. */
  readonly memoryAfterRounds: readonly Readonly<Partial<Record<PeerName, number>>>[];
  readonly targets: readonly Verdict[];
}

/** Measures everything; `progress` gets a line per step. Memory first, each pair alone on the machine; then load, the peers taking turns. */
export async function runBench(
  options: BenchOptions,
  progress: (line: string) => void,
): Promise<BenchResult> {
  const report = new Report();
  for (let round = 1; round <= options.rounds; round++) {
    for (const name of options.peers) {
      if (name === 'none') continue;
      progress(`memory, round ${round}: ${name}`);
      await memoryOfFreshPair(name, report);
    }
  }
  const memoryAfterRounds = await loadRounds(options, report, progress);
  const rows = report.rows();
  return { options, rows, memoryAfterRounds, targets: judge(rows) };
}

async function memoryOfFreshPair(name: PeerName, report: Report): Promise<void> {
  using lab = await Lab.create();
  const bed = await makeBed(lab, name);
  const peer = await peers[name].start(bed);
  const readings = await measureMemory(bed, peer);
  for (const [row, measurement] of Object.entries(readings)) report.add(row, name, measurement);
}

async function loadRounds(
  options: BenchOptions,
  report: Report,
  progress: (line: string) => void,
): Promise<BenchResult['memoryAfterRounds']> {
  using lab = await Lab.create();
  const running = new Map<PeerName, { bed: Bed; peer: RunningPeer }>();
  for (const name of options.peers) {
    progress(`starting ${name}`);
    const bed = await makeBed(lab, name);
    running.set(name, { bed, peer: await peers[name].start(bed) });
  }
  const memoryAfterRounds: Partial<Record<PeerName, number>>[] = [];
  for (let round = 0; round < options.rounds; round++) {
    for (const row of LOAD_ROWS) {
      progress(`load, round ${round + 1} of ${options.rounds}: ${row.name}`);
      for (const name of rotated(options.peers, round)) {
        const { bed, peer } = running.get(name)!;
        report.add(row.name, name, await measureLoad(bed, peer, row, options.secs));
      }
    }
    const memory: Partial<Record<PeerName, number>> = {};
    for (const [name, { peer }] of running) {
      if (peer.proxies.length > 0) memory[name] = (await settledMemory(peer)).pssMb;
    }
    memoryAfterRounds.push(memory);
  }
  return memoryAfterRounds;
}

/** Another peer goes first in every round. */
function rotated<T>(items: readonly T[], by: number): T[] {
  const start = by % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}
