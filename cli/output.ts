import { printable } from '../mesh/common/printable.js';

/** Rows of a table: the first has the column names. Absent values are shown as `-`. */
export type Rows = readonly (readonly (string | number | null | undefined)[])[];

/** Columns two spaces apart, the last one as wide as it likes; numbers to the right. Lines are cut at `columns`. */
export function renderTable(rows: Rows, columns: number | null): string {
  const texts = rows.map((row) => row.map((cell) => clean(cell)));
  const widths = texts[0]!.map((_, column) => Math.max(...texts.map((row) => row[column]?.length ?? 0)));
  const isNumber = texts[0]!.map(
    (_, column) => rows.length > 1 && rows.slice(1).every((row) => typeof row[column] === 'number'),
  );
  const lines = texts.map((row) =>
    row
      .map((text, column) => {
        if (isNumber[column]) return text.padStart(widths[column]!);
        return column === row.length - 1 ? text : text.padEnd(widths[column]!);
      })
      .join('  ')
      .trimEnd(),
  );
  return `${lines.map((line) => (columns === null ? line : cut(line, columns))).join('\n')}\n`;
}

function clean(cell: string | number | null | undefined): string {
  return cell === null || cell === undefined || cell === '' ? '-' : printable(String(cell));
}

function cut(line: string, columns: number): string {
  return line.length <= columns ? line : `${line.slice(0, Math.max(0, columns - 1))}…`;
}

/** `340 ms`, `12 s`, `5 m`, `3 h`, `2 d`: the largest unit that leaves at least one. */
export function formatAge(ms: number): string {
  const units = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1_000],
  ] as const;
  const found = units.find(([, size]) => Math.abs(ms) >= size);
  return found === undefined ? `${Math.round(ms)}ms` : `${Math.trunc(ms / found[1])}${found[0]}`;
}

/** `512`, `1.5K`, `2.0M`, `3.1G`: powers of 1024. */
export function formatBytes(bytes: number): string {
  const units = ['', 'K', 'M', 'G', 'T'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? String(bytes) : `${value.toFixed(1)}${units[unit]}`;
}
