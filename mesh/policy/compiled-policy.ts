import { messageOf } from '../common/errors.js';
import type { AuthorizationMatch, AuthorizationPolicy } from '../store/types.js';
import type { RangeTables } from './address-table.js';
import { clauseHolds } from './conditions.js';
import { type IndexPlaces, placesOf } from './index-places.js';
import type { Subject } from './subject.js';
import type { Decision } from './types.js';

/** A policy made ready to be asked. */
export interface CompiledPolicy {
  readonly policy: AuthorizationPolicy;
  /** The policy's own, or an address range that is none. */
  readonly defect: string | null;
  readonly rules: readonly CompiledRule[];
}

export function compilePolicy(policy: AuthorizationPolicy, networks: RangeTables): CompiledPolicy {
  const defect = policy.defect ?? defectOf(policy, networks);
  const rules = defect === null ? policy.groups.map((_, rule) => new CompiledRule(policy, rule)) : [];
  return { policy, defect, rules };
}

/** One group of a policy (sheet 3.6): all its clauses must hold. */
export class CompiledRule {
  readonly policy: AuthorizationPolicy;
  readonly clauses: readonly (readonly AuthorizationMatch[])[];
  /** What it decides where it matches. */
  readonly decision: Decision;
  #places: IndexPlaces | null = null;

  constructor(policy: AuthorizationPolicy, rule: number) {
    this.policy = policy;
    this.clauses = policy.groups[rule]!;
    const reason = policy.action === 'allow' ? 'allowed' : 'denied';
    this.decision = { policy: policy.key, rule, reason };
  }

  /** Where an index files it. */
  get places(): IndexPlaces {
    this.#places ??= placesOf(this.clauses);
    return this.#places;
  }

  matches(subject: Subject): boolean {
    for (const clause of this.clauses) if (!clauseHolds(clause, subject)) return false;
    return true;
  }
}

/** Reads all address ranges, so that the first question does not have to. */
function defectOf({ groups }: AuthorizationPolicy, networks: RangeTables): string | null {
  try {
    for (const clauses of groups)
      for (const clause of clauses)
        for (const match of clause) {
          networks.of(match.sourceIps);
          networks.of(match.notSourceIps);
          networks.of(match.destinationIps);
          networks.of(match.notDestinationIps);
        }
    return null;
  } catch (error) {
    return messageOf(error);
  }
}
