import type { AddressRange, AuthorizationMatch, ServiceAccountMatch, StringMatch } from '../store/types.js';
import type { CompiledPolicies } from './compiled-policies.js';
import type { CompiledPolicy, CompiledRule } from './compiled-policy.js';
import { clauseHolds, emptyMatch, matchFields, matchHolds } from './conditions.js';
import type { Subject } from './subject.js';
import type { ConnectionFacts, Explanation, MatchTrail, PolicyTrail, RuleTrail, Verdict } from './types.js';

/** Every policy, rule and condition, whether or not it was needed for the verdict. */
export function explain(
  policies: CompiledPolicies,
  connection: ConnectionFacts,
  subject: Subject,
): Explanation {
  return {
    connection,
    verdict: policies.judge(subject),
    missing: policies.missing,
    policies: policies.policies.map((policy) => policyTrail(policy, subject)),
  };
}

/** What an access log says of a connection that was refused or closed (hbone-and-wds.md 7.2). */
export function rejectionText({ policy, reason }: Pick<Verdict, 'policy' | 'reason'>): string {
  const why = {
    denied: `explicitly denied by: ${policy}${policy === null ? '' : strictText(policy)}`,
    'not-allowed': 'allow policies exist, but none allowed',
    'policy-missing': `policy applies, but is not known: ${policy}`,
    'policy-defect': `policy applies, but cannot be evaluated: ${policy}`,
    'policies-unknown': 'policies are not known yet',
    allowed: `allowed by: ${policy}`,
    'no-allow-policy': 'no policy denies',
  }[reason];
  return `connection closed due to policy rejection: ${why}`;
}

/** Policies made of PeerAuthentications: names which no object can have (hbone-and-wds.md 3.6). Their users wrote something else. */
function strictText(policy: string): string {
  const [namespace, name = ''] = policy.split('/');
  const why = 'STRICT: the peer showed no identity of the mesh';
  if (name === 'istio_converted_static_strict') return ` (PeerAuthentication ${why})`;
  const [, written] = /^converted_peer_authentication_(.+)$/.exec(name) ?? [];
  return written === undefined ? '' : ` (PeerAuthentication ${namespace}/${written} ${why})`;
}

function policyTrail({ policy, defect, rules }: CompiledPolicy, subject: Subject): PolicyTrail {
  const { key, scope, action, dryRun } = policy;
  const trails = rules.map((rule) => ruleTrail(rule, subject));
  const matches = trails.some((rule) => rule.matches);
  return { policy: key, scope, action, dryRun, defect, matches, rules: trails };
}

function ruleTrail(rule: CompiledRule, subject: Subject): RuleTrail {
  return {
    rule: rule.decision.rule!,
    matches: rule.matches(subject),
    clauses: rule.clauses.map((clause) => ({
      matches: clauseHolds(clause, subject),
      alternatives: clause.map((match) => matchTrail(match, subject)),
    })),
  };
}

function matchTrail(match: AuthorizationMatch, subject: Subject): MatchTrail {
  const fields = matchFields.filter((field) => match[field].length > 0);
  return {
    matches: matchHolds(match, subject),
    conditions: fields.map((field) => ({
      field,
      wanted: match[field].map(textOf),
      holds: matchHolds({ ...emptyMatch, [field]: match[field] }, subject),
    })),
  };
}

function textOf(value: StringMatch | AddressRange | ServiceAccountMatch | number): string {
  if (typeof value === 'number') return String(value);
  if ('address' in value) return `${value.address}/${value.prefixLength}`;
  if ('serviceAccount' in value) return `${value.namespace}/${value.serviceAccount}`;
  switch (value.kind) {
    case 'presence':
      return '*';
    case 'prefix':
      return `${value.value}*`;
    case 'suffix':
      return `*${value.value}`;
    default:
      return value.value;
  }
}
