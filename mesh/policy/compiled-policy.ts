import { messageOf } from '../common/errors.js';
import type { AuthorizationMatch, AuthorizationPolicy } from '../store/types.js';
import { type Condition, conditionsOf } from './conditions.js';
import { type IndexPlaces, placesOf } from './index-places.js';
import type { Subject } from './subject.js';
import type { Decision } from './types.js';

/** A policy made ready to be asked. */
export interface CompiledPolicy {
  readonly policy: AuthorizationPolicy;
  /** The policy's own, or why it could not be compiled. */
  readonly defect: string | null;
  readonly rules: readonly CompiledRule[];
}

export interface CompiledMatch {
  readonly match: AuthorizationMatch;
  readonly conditions: readonly Condition[];
}

export function compilePolicy(policy: AuthorizationPolicy): CompiledPolicy {
  if (policy.defect !== null) return { policy, defect: policy.defect, rules: [] };
  try {
    return { policy, defect: null, rules: policy.groups.map((_, rule) => new CompiledRule(policy, rule)) };
  } catch (error) {
    return { policy, defect: messageOf(error), rules: [] };
  }
}

/** One group of a policy (sheet 3.6): all its clauses must match, and of each clause one alternative, if it has any. */
export class CompiledRule {
  readonly policy: AuthorizationPolicy;
  readonly clauses: readonly (readonly CompiledMatch[])[];
  /** Where an index files it. */
  readonly places: IndexPlaces;
  /** What it decides where it matches. */
  readonly decision: Decision;

  constructor(policy: AuthorizationPolicy, rule: number) {
    const clauses = policy.groups[rule]!;
    this.policy = policy;
    this.clauses = clauses.map((clause) =>
      clause.map((match) => ({ match, conditions: conditionsOf(match) })),
    );
    this.places = placesOf(clauses);
    const reason = policy.action === 'allow' ? 'allowed' : 'denied';
    this.decision = { policy: policy.key, rule, reason };
  }

  matches(subject: Subject): boolean {
    for (const clause of this.clauses) if (!clauseMatches(clause, subject)) return false;
    return true;
  }
}

export function clauseMatches(clause: readonly CompiledMatch[], subject: Subject): boolean {
  if (clause.length === 0) return true;
  for (const match of clause) if (matchMatches(match, subject)) return true;
  return false;
}

/** One with no field set at all never matches. */
export function matchMatches({ conditions }: CompiledMatch, subject: Subject): boolean {
  for (const condition of conditions) if (!condition.holds(subject)) return false;
  return conditions.length > 0;
}
