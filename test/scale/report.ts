/** One line of the table. */
export interface Row {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** Held against: it must be below; absent: told only. */
  readonly limit?: number;
}

/** The table; `met` says that every limit is held. */
export function formatTable(title: string, rows: readonly Row[]): string {
  const width = Math.max(...rows.map(({ what }) => what.length)) + 2;
  const lines = rows.map((row) => {
    const { what, value, unit, limit } = row;
    const held = limit === undefined ? '' : `< ${digits(limit)}`.padEnd(10) + (isMet(row) ? 'met' : 'MISSED');
    return `  ${what.padEnd(width)}${digits(value).padStart(9)} ${unit.padEnd(6)} ${held}`.trimEnd();
  });
  return [title, ...lines].join('\n');
}

export function isMet({ value, limit }: Row): boolean {
  return limit === undefined || value < limit;
}

/** Of sorted values; `share` 0.99: the smallest that 99 of 100 do not exceed. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

function digits(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en');
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
