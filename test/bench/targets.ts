import type { PeerName } from './bed.js';
import type { ReportRow } from './report.js';

/** What Culvert has set itself to reach against the others measured in the same run. */
export interface Verdict {
  readonly target: string;
  readonly actual: number;
  /** Least, or most, that meets the target. */
  readonly limit: number;
  readonly met: boolean;
}

type Field = 'median' | 'p99Us' | 'cpuSeconds' | 'largestMb';

const PROXIES: readonly PeerName[] = ['haproxy', 'nginx', 'envoy-mtls', 'envoy-hbone'];
const HBONE: readonly PeerName[] = ['envoy-hbone'];

/** Checks culvert's rows; targets whose peers were not measured are left out. */
export function judge(rows: readonly ReportRow[]): Verdict[] {
  const read = (row: string, peer: PeerName, field: Field): number | null =>
    rows.find((one) => one.row === row && one.peer === peer)?.[field] ?? null;
  const verdicts: Verdict[] = [];
  const check = (
    target: string,
    actual: number | null,
    limit: number | null,
    wanted: 'least' | 'most',
  ): void => {
    if (actual === null || limit === null) return;
    verdicts.push({ target, actual, limit, met: wanted === 'least' ? actual >= limit : actual <= limit });
  };
  const best = (row: string, peers: readonly PeerName[], field: Field, factor: number): number | null => {
    const values = peers.map((peer) => read(row, peer, field)).filter((value) => value !== null);
    if (values.length === 0) return null;
    return factor * (field === 'median' ? Math.max(...values) : Math.min(...values));
  };
  const versus = (row: string, peers: readonly PeerName[], factor: number, whom: string): void =>
    check(
      `${row}: at least ${factor} x ${whom}`,
      read(row, 'culvert', 'median'),
      best(row, peers, 'median', factor),
      'least',
    );

  versus('rps-1', PROXIES, 1, 'the best peer');
  for (const row of ['rps-32', 'rps-128']) {
    versus(row, PROXIES, 1.6, 'every peer');
    check(
      `${row}: p99 no higher than any peer`,
      read(row, 'culvert', 'p99Us'),
      best(row, PROXIES, 'p99Us', 1),
      'most',
    );
  }
  const cpu = best('rps-32', HBONE, 'cpuSeconds', 0.65);
  check('rps-32: CPU at most 0.65 x Envoy HBONE', read('rps-32', 'culvert', 'cpuSeconds'), cpu, 'most');
  versus('connections', HBONE, 1.5, 'Envoy HBONE');
  for (const row of ['bulk-up', 'bulk-down', 'bulk-up-8']) {
    versus(row, HBONE, 1, 'Envoy HBONE');
    versus(row, PROXIES, 0.8, 'the best peer');
  }
  check('memory-idle: an agent at most 80 MB', read('memory-idle', 'culvert', 'largestMb'), 80, 'most');
  check('memory-1000: at most 15 MB added to the pair', read('memory-1000', 'culvert', 'median'), 15, 'most');
  return verdicts;
}

export function formatVerdicts(verdicts: readonly Verdict[]): string {
  const number = (value: number): string => Number(value.toPrecision(3)).toLocaleString('en-US');
  return verdicts
    .map(
      ({ target, actual, limit, met }) =>
        `${met ? 'met   ' : 'MISSED'}  ${target}: ${number(actual)} (limit ${number(limit)})`,
    )
    .join('\n');
}
