import { type Fields, formatPath } from '../../mesh/manifests/index.js';
import type { Limitation } from './report.js';

/** What stands against a field, or what else happens; `effect` by default: it is ignored. */
export type Unenforced = string | { readonly reason: string; readonly effect: string };

/** For fields that mean something at L7 only. */
export const NEEDS_WAYPOINT: Unenforced = {
  reason: 'acts at L7 only',
  effect: 'ignored: it needs a waypoint',
};

/** Collects what of an object is accepted but not in force as written. */
export class Limits {
  readonly list: Limitation[];

  constructor() {
    this.list = [];
  }

  add(fields: Fields, field: string, what: Unenforced): void {
    const { reason, effect } = typeof what === 'string' ? { reason: what, effect: 'ignored' } : what;
    this.list.push({
      field: formatPath(field === '' ? fields.path : [...fields.path, field]),
      reason,
      effect,
    });
  }

  /** Reports each field that is there and `unenforced`; one that is not `honoured` either is a problem of the object. */
  check(
    fields: Fields,
    honoured: readonly string[],
    unenforced: Readonly<Record<string, Unenforced>> = {},
  ): void {
    for (const field of fields.keys) {
      if (honoured.includes(field)) continue;
      const what = Object.hasOwn(unenforced, field) ? unenforced[field] : undefined;
      if (what === undefined) fields.wrong(field, 'is not known');
      else this.add(fields, field, what);
    }
  }
}

/** Milliseconds of a duration like `10s`, `1.5s` or `1h30m`; null where absent. At least 1 ms, at most 365 days. */
export function readDurationMs(fields: Fields, field: string): number | null {
  const text = fields.text(field);
  if (text === '') return null;
  const isSound = /^(\d+(\.\d+)?(h|m|s|ms|us|µs|ns))+$/.test(text);
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)/g))
    total += Number(amount) * UNIT_MS[unit!]!;
  if (isSound && total >= 1 && total <= MAX_DURATION_MS) return Math.round(total);
  fields.wrong(field, `must be a duration from 1ms to 8760h like 10s, not '${text}'`);
  return null;
}

const UNIT_MS: Readonly<Record<string, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 1e-3,
  µs: 1e-3,
  ns: 1e-6,
};
const MAX_DURATION_MS = 365 * 24 * 3_600_000;

/** metadata.creationTimestamp; '' where absent. */
export function readCreatedAt(metadata: Fields): string {
  const text = metadata.text('creationTimestamp');
  if (text === '' || !Number.isNaN(Date.parse(text))) return text;
  metadata.wrong('creationTimestamp', `must be a time, not '${text}'`);
  return '';
}
