import type { ManifestProblem } from '../../mesh/manifests/index.js';
import type { Limitation } from '../model/index.js';
import type { Condition } from './types.js';

/** What a condition says; the object says which. */
export interface Verdict {
  readonly status: 'True' | 'False';
  readonly reason: string;
  readonly message: string;
}

/** What of an object holds, as people are told. */
export interface Judgement {
  /** What makes the object invalid; empty: it is sound. */
  readonly problems: readonly ManifestProblem[];
  /** What of a sound one is not in force as written. */
  readonly limitations: readonly Limitation[];
  /** It is a policy whose selector takes no pod at present: nothing is wrong, yet perhaps not meant. */
  readonly isIdle: boolean;
}

const MAX_CHARS = 1000;

/** The condition by which we say whether an object is in force as written. Policies have Istio's (mesh-apis.md 1.4), the other kinds one of our own. */
export function conditionTypeOf(kind: string): string {
  return kind === 'AuthorizationPolicy' ? 'ZtunnelAccepted' : 'culvert.io/InForce';
}

export function verdictOf(kind: string, { problems, limitations, isIdle }: Judgement): Verdict {
  const isPolicy = kind === 'AuthorizationPolicy';
  if (problems.length > 0)
    return { status: 'False', reason: 'Invalid', message: listOf(problems.map(textOf)) };
  if (limitations.length > 0)
    return {
      status: 'False',
      reason: isPolicy ? 'UnsupportedValue' : 'NotAsWritten',
      message: listOf(limitations.map(textOf)),
    };
  const message = isIdle ? 'in force as written; selects no pod at present' : 'in force as written';
  return { status: 'True', reason: isPolicy ? 'Accepted' : 'AsWritten', message };
}

function textOf({ field, reason, effect }: ManifestProblem | Limitation): string {
  return [field, reason, effect].filter((part) => part !== '').join(': ');
}

/** `a; b; and 3 more`, no longer than people read. */
function listOf(texts: readonly string[]): string {
  const shown: string[] = [];
  let chars = 0;
  for (const text of texts) {
    if (shown.length > 0 && chars + text.length > MAX_CHARS) break;
    shown.push(text.slice(0, MAX_CHARS));
    chars += text.length;
  }
  if (shown.length < texts.length) shown.push(`and ${texts.length - shown.length} more`);
  return shown.join('; ');
}

/** The conditions of which ours is `verdict`, as it is to be written: its time is when its status came to be what it is. */
export function conditionOf(
  type: string,
  verdict: Verdict,
  generation: number,
  before: Condition | undefined,
  nowMs: number,
): Condition {
  const isSame = before !== undefined && before.status === verdict.status && before.lastTransitionTime !== '';
  const now = new Date(nowMs).toISOString().replace(/\.\d+Z$/, 'Z');
  return {
    type,
    ...verdict,
    observedGeneration: generation,
    lastTransitionTime: isSame ? before.lastTransitionTime : now,
  };
}

/** Whether a person or program would read the same. `hasGenerations` false: the CRD does not keep them. */
export function isSameCondition(
  a: Condition | undefined,
  b: Condition,
  options: { readonly hasGenerations: boolean },
): boolean {
  if (a === undefined) return false;
  const isSameGeneration = !options.hasGenerations || a.observedGeneration === b.observedGeneration;
  return a.status === b.status && a.reason === b.reason && a.message === b.message && isSameGeneration;
}
