import type { PolicySet } from '../store/types.js';
import type { CompiledPolicy } from './compiled-policy.js';
import { RuleIndex } from './rule-index.js';
import type { Subject } from './subject.js';
import type { Decision, Verdict } from './types.js';

const nothing: readonly never[] = [];
const allowedByAbsence = verdictOf({ policy: null, rule: null, reason: 'no-allow-policy' });
const notAllowed: Decision = { policy: null, rule: null, reason: 'not-allowed' };
const notAllowedVerdict = verdictOf(notAllowed);

/** The policies that apply to a workload, ready to judge its connections. */
export class CompiledPolicies {
  readonly policies: readonly CompiledPolicy[];
  readonly missing: readonly string[];
  /** What denies every connection; null: nothing does. */
  readonly #always: Verdict | null;
  readonly #enforced: Stage;
  /** Null: no policy is on trial. */
  readonly #onTrial: Stage | null;
  readonly #verdicts = new Map<Decision, Verdict>();

  constructor(set: PolicySet, compile: (policy: PolicySet['policies'][number]) => CompiledPolicy) {
    this.missing = set.missing;
    this.policies = set.policies.map(compile);
    this.#enforced = new Stage(this.policies.filter(({ policy }) => !policy.dryRun));
    const onTrial = this.policies.filter(({ policy }) => policy.dryRun);
    this.#onTrial = onTrial.length > 0 ? new Stage(onTrial) : null;
    const always = unknownIn(set) ?? this.#enforced.defect;
    this.#always = always === null ? null : verdictOf(always);
  }

  /** DENY before ALLOW; where an ALLOW applies, one must match (sheet 3.6). */
  judge(subject: Subject): Verdict {
    if (this.#always !== null) return this.#always;
    const denial = this.#enforced.deny.first(subject);
    if (denial !== null) return this.#verdictOf(denial.decision);
    const allowing = this.#enforced.hasAllow ? this.#enforced.allow.first(subject) : null;
    if (this.#enforced.hasAllow && allowing === null) return notAllowedVerdict;
    const verdict = allowing === null ? allowedByAbsence : this.#verdictOf(allowing.decision);
    if (this.#onTrial === null) return verdict;
    const dryRun = deniedOnTrial(this.#onTrial, subject, allowing !== null);
    return dryRun.length === 0 ? verdict : { ...verdict, dryRun };
  }

  /** One verdict per rule: judging a connection allocates nothing for it. */
  #verdictOf(decision: Decision): Verdict {
    const known = this.#verdicts.get(decision);
    if (known !== undefined) return known;
    const verdict = verdictOf(decision);
    this.#verdicts.set(decision, verdict);
    return verdict;
  }
}

/** Policies that are evaluated together: the enforced ones, or those on trial. */
class Stage {
  readonly deny: RuleIndex;
  readonly allow: RuleIndex;
  readonly hasAllow: boolean;
  /** Of the first policy that cannot be evaluated. */
  readonly defect: Decision | null;

  constructor(policies: readonly CompiledPolicy[]) {
    const rulesOf = (action: 'allow' | 'deny') =>
      policies.filter(({ policy }) => policy.action === action).flatMap(({ rules }) => rules);
    this.deny = new RuleIndex(rulesOf('deny'));
    this.allow = new RuleIndex(rulesOf('allow'));
    this.hasAllow = policies.some(({ policy }) => policy.action === 'allow');
    const bad = policies.find(({ defect }) => defect !== null);
    this.defect = bad === undefined ? null : { policy: bad.policy.key, rule: null, reason: 'policy-defect' };
  }
}

/** What is not known is not "none". */
function unknownIn({ isComplete, missing }: PolicySet): Decision | null {
  if (!isComplete) return { policy: null, rule: null, reason: 'policies-unknown' };
  return missing.length === 0 ? null : { policy: missing[0]!, rule: null, reason: 'policy-missing' };
}

/** What would deny a connection that is allowed, were the policies on trial enforced as well. */
function deniedOnTrial(onTrial: Stage, subject: Subject, isAllowedByRule: boolean): readonly Decision[] {
  const decisions: Decision[] = onTrial.deny.firstOfEach(subject).map(({ decision }) => decision);
  if (onTrial.defect !== null) decisions.unshift(onTrial.defect);
  if (onTrial.hasAllow && !isAllowedByRule && onTrial.allow.first(subject) === null)
    decisions.push(notAllowed);
  return decisions.length === 0 ? nothing : decisions;
}

function verdictOf(decision: Decision): Verdict {
  const allowed = decision.reason === 'allowed' || decision.reason === 'no-allow-policy';
  return { allowed, ...decision, dryRun: nothing };
}
