import type { Decoded, Remark } from './types.js';

export const LAST_GOOD = 'its last good version stays in force';
const NOT_IN_FORCE = 'it is not in force';

/** One for all sound objects: there may be thousands. */
const NONE: readonly Remark[] = [];

/** All that a person should know of what was decoded. `hasGood`: a good version of it is in force. */
export function remarksOf(decoded: Decoded<unknown>, hasGood: boolean): readonly Remark[] {
  if (decoded.outcome === 'ignored') return NONE;
  if (decoded.outcome === 'unknown-kind') return decoded.remark === undefined ? NONE : [decoded.remark];
  const remarks = decoded.remarks ?? NONE;
  if (decoded.outcome === 'object') return remarks;
  const { problems, inPlace, standIn = 'what can be read of it is in force in its place' } = decoded;
  const effect = hasGood ? LAST_GOOD : inPlace === undefined ? NOT_IN_FORCE : standIn;
  return [...problems.map((problem) => ({ ...problem, effect, isProblem: true })), ...remarks];
}
