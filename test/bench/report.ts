import type { PeerName } from './bed.js';
import { LOAD_ROWS, MEMORY_ROWS, type Measurement } from './rows.js';

/** A line of the JSON: medians over the rounds. */
export interface ReportRow {
  readonly row: string;
  readonly peer: PeerName;
  readonly median: number;
  readonly unit: string;
  readonly p50Us: number | null;
  readonly p99Us: number | null;
  readonly cpuSeconds: number | null;
  readonly privateMb: number | null;
  readonly largestMb: number | null;
  /** Every round's value, in order. */
  readonly values: readonly number[];
}

const ROWS: readonly { name: string; unit: string }[] = [...LOAD_ROWS, ...MEMORY_ROWS];

/** Collects readings and makes rows of them, in the order of the rows and of first appearance of the peers. */
export class Report {
  readonly #readings: Map<string, Map<PeerName, Measurement[]>>;

  constructor() {
    this.#readings = new Map(ROWS.map((row) => [row.name, new Map()]));
  }

  add(row: string, peer: PeerName, measurement: Measurement): void {
    const peers = this.#readings.get(row)!;
    peers.set(peer, [...(peers.get(peer) ?? []), measurement]);
  }

  rows(): ReportRow[] {
    return ROWS.flatMap((row) =>
      [...this.#readings.get(row.name)!].map(([peer, readings]) => summarize(row, peer, readings)),
    );
  }
}

function summarize(
  row: { name: string; unit: string },
  peer: PeerName,
  readings: readonly Measurement[],
): ReportRow {
  const of = (field: Exclude<keyof Measurement, 'value'>): number | null => {
    const present = readings.map((reading) => reading[field]).filter((value) => value !== null);
    return present.length === 0 ? null : median(present);
  };
  const values = readings.map((reading) => reading.value);
  return {
    row: row.name,
    peer,
    median: median(values),
    unit: row.unit,
    p50Us: of('p50Us'),
    p99Us: of('p99Us'),
    cpuSeconds: of('cpuSeconds'),
    privateMb: of('privateMb'),
    largestMb: of('largestMb'),
    values,
  };
}

/** Middle value; of an even number of values the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((x, y) => x - y);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The table for people: a block of lines a row, a column a peer; ± is half of (largest - smallest) / median. */
export function formatTable(rows: readonly ReportRow[]): string {
  const peers = [...new Set(rows.map((row) => row.peer))];
  const lines: string[][] = [['', ...peers]];
  for (const { name, unit } of ROWS) {
    const cells = peers.map((peer) => rows.find((row) => row.row === name && row.peer === peer));
    if (cells.every((cell) => cell === undefined)) continue;
    const line = (label: string, format: (row: ReportRow) => string | null): void => {
      const texts = cells.map((cell) => (cell === undefined ? null : format(cell)) ?? '');
      if (texts.some((text) => text !== '')) lines.push([label, ...texts]);
    };
    line(`${name}, ${unit}`, (row) => `${significant(row.median)}${spread(row.values)}`);
    line('  p50 / p99, us', (row) =>
      row.p50Us === null ? null : `${significant(row.p50Us)} / ${significant(row.p99Us!)}`,
    );
    line(`  CPU s per ${unit === 'Gbit/s' ? 'GB' : '100k'}`, (row) => orBlank(row.cpuSeconds));
    line('  private, MB', (row) => orBlank(row.privateMb));
    line('  larger proxy, MB', (row) => orBlank(row.largestMb));
  }
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
        .join('  '),
    )
    .join('\n');
}

function spread(values: readonly number[]): string {
  if (values.length < 2) return '';
  const width = (Math.max(...values) - Math.min(...values)) / median(values);
  return ` ±${Math.abs(width * 50).toFixed(0)}%`;
}

/** Three significant digits, thousands with commas. */
function significant(value: number): string {
  if (Math.abs(value) >= 1000) return Number(value.toPrecision(3)).toLocaleString('en-US');
  return Number(value.toPrecision(3)).toString();
}

function orBlank(value: number | null): string | null {
  return value === null ? null : significant(value);
}
