import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { PEER_NAMES, type PeerName } from './bed.js';
import { runBench } from './bench.js';
import { formatTable, median, Report, type ReportRow } from './report.js';
import { LOAD_ROWS, MEMORY_ROWS, type Measurement } from './rows.js';
import { formatVerdicts, judge } from './targets.js';

const ROW_NAMES = [...LOAD_ROWS, ...MEMORY_ROWS].map((row) => row.name);

describe('the bench in short', () => {
  test('every peer carries every row', async () => {
    const result = await runBench({ peers: PEER_NAMES, rounds: 1, secs: 0.3 }, () => undefined);
    const wanted = PEER_NAMES.flatMap((peer) =>
      ROW_NAMES.filter((row) => peer !== 'none' || !row.startsWith('memory')).map((row) => `${row} ${peer}`),
    );
    expect(result.rows.map((row) => `${row.row} ${row.peer}`).sort()).toEqual(wanted.sort());
    for (const row of result.rows) {
      if (row.row !== 'memory-1000') expect(row.median).toBeGreaterThan(0);
      if (/^(rps|connections)/.test(row.row)) expect(row.p99Us).toBeGreaterThanOrEqual(row.p50Us!);
      if (!row.row.startsWith('memory') && row.peer !== 'none') expect(row.cpuSeconds).not.toBeNull();
    }
    expect(result.memoryAfterRounds).toHaveLength(1);
  }, 240_000);
});

describe('the report', () => {
  const reading = (value: number, more: Partial<Measurement> = {}): Measurement => ({
    value,
    p50Us: null,
    p99Us: null,
    cpuSeconds: null,
    privateMb: null,
    largestMb: null,
    ...more,
  });

  test('takes medians field by field and keeps every value', () => {
    const report = new Report();
    for (const [value, p99Us] of [
      [10, 5],
      [30, 1],
      [20, 3],
    ] as const)
      report.add('rps-1', 'none', reading(value, { p99Us }));
    expect(report.rows()).toMatchObject([
      { row: 'rps-1', peer: 'none', median: 20, p99Us: 3, p50Us: null, values: [10, 30, 20] },
    ]);
    expect(median([4, 1])).toBe(2.5);
  });

  test('prints a column a peer and the spread', () => {
    const report = new Report();
    for (const value of [12_000, 13_000, 14_000])
      report.add('rps-32', 'nginx', reading(value, { p50Us: 12.34, p99Us: 50 }));
    expect(
      formatTable(report.rows())
        .split('\n')
        .map((line) => line.trim()),
    ).toEqual(['nginx', 'rps-32, requests/s  13,000 ±8%', 'p50 / p99, us      12.3 / 50']);
  });
});

describe('the targets', () => {
  const row = (name: string, peer: PeerName, median: number, more: Partial<ReportRow> = {}): ReportRow => ({
    row: name,
    peer,
    median,
    unit: '',
    p50Us: null,
    p99Us: null,
    cpuSeconds: null,
    privateMb: null,
    largestMb: null,
    values: [median],
    ...more,
  });

  test('compare with the best peer of the same run, and leave out what was not measured', () => {
    const verdicts = judge([
      row('rps-32', 'culvert', 320, { p99Us: 9, cpuSeconds: 0.7 }),
      row('rps-32', 'nginx', 100, { p99Us: 10, cpuSeconds: 2 }),
      row('rps-32', 'envoy-hbone', 210, { p99Us: 8, cpuSeconds: 1 }),
      row('memory-idle', 'culvert', 150, { largestMb: 80 }),
    ]);
    expect(verdicts.map(({ met, limit }) => [met, limit])).toEqual([
      [false, 336],
      [false, 8],
      [false, 0.65],
      [true, 80],
    ]);
    expect(formatVerdicts(verdicts)).toContain('MISSED  rps-32: at least 1.6 x every peer: 320 (limit 336)');
    expect(judge([row('rps-32', 'nginx', 100)])).toEqual([]);
  });
});

test('the README names every row and peer', () => {
  const readme = readFileSync(join(packageRoot(), 'test/bench/README.md'), 'utf8');
  for (const name of [...ROW_NAMES, ...PEER_NAMES]) expect(readme).toContain(name);
});
