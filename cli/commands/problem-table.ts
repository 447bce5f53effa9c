import type { ManifestProblem } from '../../mesh/manifests/types.js';
import { type ControllerStatus, objectOf, placeOf } from '../controller-status.js';
import type { Rows } from '../output.js';

type Told = Pick<ControllerStatus, 'problems' | 'notices' | 'reports'>;

/** More rows than this are for `-o json`. */
const MAX_ROWS = 50;

/** One table of each that there is. */
export function problemTables(told: Told, whose: string): readonly { title: string; rows: Rows }[] {
  const ofManifests = (list: readonly ManifestProblem[]): Rows => [
    ['WHERE', 'OBJECT', 'FIELD', 'REASON', 'WHAT FOLLOWS'],
    ...list.map((one) => [placeOf(one), objectOf(one), one.field, one.reason, one.effect]),
  ];
  const ofReports: Rows = [
    ['OBJECT', 'FIELD', 'REASON', 'WHAT FOLLOWS'],
    ...told.reports.map(({ object, field, reason, effect }) => [object, field, reason, effect]),
  ];
  return [
    { title: `problems of the ${whose}`, rows: ofManifests(told.problems) },
    { title: 'notices', rows: ofManifests(told.notices) },
    { title: 'reports: in force, but not as written', rows: ofReports },
  ].flatMap(({ title, rows }) => {
    if (rows.length === 1) return [];
    const rest = rows.length - 1 - MAX_ROWS;
    return [
      { title: rest > 0 ? `${title} (${rest} more: -o json)` : title, rows: rows.slice(0, MAX_ROWS + 1) },
    ];
  });
}
