import { istio } from '../../../mesh/proto/index.js';
import type {
  AttributeMatch,
  AuthorizationPolicy,
  AuthorizationRule,
  L4Attribute,
  Limitation,
  PolicyTarget,
} from '../../model/index.js';
import { addressBytes } from '../names.js';
import type { Resource, TranslateOptions } from '../types.js';
import { forAllTrustDomains } from './trust-domains.js';

const { Action, Scope } = istio.security;

type Authorization = istio.security.Authorization.$Properties;
type Group = istio.security.Group.$Properties;
type Match = istio.security.Match.$Properties;
type StringMatch = istio.security.StringMatch.$Properties;

/** Everything that decides an AuthorizationPolicy's resource. */
export interface AuthorizationInput {
  readonly policy: AuthorizationPolicy;
  /** Of its targets, the services that exist: none has a waypoint, so that the agents of their pods enforce it. */
  readonly boundTargets: readonly PolicyTarget[];
  /** Where no agent enforces it. */
  readonly gaps: readonly Limitation[];
}

export interface TranslatedPolicy {
  /** Null: agents need none. */
  readonly resource: Resource<Authorization> | null;
  readonly limitations: readonly Limitation[];
}

/** The `istio.security.Authorization` of a policy (hbone-and-wds.md 3.6). It allows nothing that the policy, read in full, would not. */
export function translateAuthorization(
  input: AuthorizationInput,
  options: TranslateOptions,
): TranslatedPolicy {
  const { policy, boundTargets } = input;
  const limitations = [...limitationsOf(input), ...input.gaps];
  if (policy.action === 'AUDIT' || (policy.targets.length > 0 && boundTargets.length === 0))
    return { resource: null, limitations };
  const isAllow = policy.action === 'ALLOW';
  const message = {
    name: policy.name,
    namespace: policy.namespace,
    scope: scopeOf(policy, options),
    action: isAllow ? Action.ALLOW : Action.DENY,
    groups: groupsOf(policy, options),
    dryRun: policy.dryRun,
  };
  const name = `${policy.namespace}/${policy.name}`;
  return { resource: { name, aliases: [], follows: [], message }, limitations };
}

function scopeOf({ selector, targets, namespace }: AuthorizationPolicy, options: TranslateOptions) {
  if (selector !== null || targets.length > 0) return Scope.WORKLOAD_SELECTOR;
  return namespace === options.rootNamespace ? Scope.GLOBAL : Scope.NAMESPACE;
}

function limitationsOf({ policy, boundTargets }: AuthorizationInput): Limitation[] {
  const { action, rules } = policy;
  const limitations = policy.targets.map((target, index) => {
    const field = `spec.targetRefs[${index}]`;
    const named = `${target.kind} ${policy.namespace}/${target.name}`;
    if (target.kind !== 'Service' && target.kind !== 'ServiceEntry')
      return { field, reason: `${named} needs a waypoint`, effect: 'has no effect at L4' };
    return boundTargets.includes(target)
      ? { field, reason: `${named} has no waypoint`, effect: 'enforced at L4, on all ports of its pods' }
      : { field, reason: `${named} is not there`, effect: 'has no effect' };
  });
  if (action === 'AUDIT')
    return [
      ...limitations,
      { field: 'spec.action', reason: 'AUDIT needs a waypoint', effect: 'has no effect at L4' },
    ];
  if (action === 'CUSTOM')
    limitations.push({
      field: 'spec.action',
      reason: 'CUSTOM needs a waypoint',
      effect: 'denies what its rules match',
    });
  if (action !== 'ALLOW' && rules.length === 0)
    limitations.push({ field: 'spec.rules', reason: 'are none', effect: 'denies nothing' });
  for (const rule of rules)
    for (const { field, reason } of rule.beyond)
      limitations.push({ field, reason, effect: effectOf(action, rule) });
  return limitations;
}

function effectOf(action: AuthorizationPolicy['action'], rule: AuthorizationRule): string {
  if (action === 'ALLOW') return 'the rule allows nothing';
  return rule.clauses.length === 0
    ? 'the rule denies every connection'
    : 'the rule denies whatever the rest of it matches';
}

/** Group i is of rule i, so that verdicts name the rule as it is written; what a rule needs beside comes after all. */
function groupsOf({ action, rules }: AuthorizationPolicy, options: TranslateOptions): Group[] {
  const first: Group[] = [];
  const more: Group[] = [];
  for (const rule of rules) {
    const isVoid = action === 'ALLOW' && rule.beyond.length > 0;
    const [group = NEVER, ...others] = isVoid ? [] : groupsOfRule(rule, options);
    first.push(group);
    more.push(...others);
  }
  return [...first, ...more];
}

/** A match without conditions never matches (hbone-and-wds.md 3.6). */
const NEVER: Group = { rules: [{ matches: [{}] }] };

/** One group; one for each source where a source needs several matches. */
function groupsOfRule(rule: AuthorizationRule, options: TranslateOptions): Group[] {
  let groups: istio.security.Rules.$Properties[][] = [[]];
  for (const clause of rule.clauses) {
    const alternatives = clause.map((match) => matchesOf(match, options));
    groups = alternatives.every(({ length }) => length === 1)
      ? groups.map((rules) => [...rules, { matches: alternatives.flat() }])
      : groups.flatMap((rules) =>
          alternatives.map((all) => [...rules, ...all.map((match) => ({ matches: [match] }))]),
        );
  }
  return groups.map((rules) => ({ rules }));
}

/** All of them must hold. A trust domain is matched as the beginning of a principal, hence apart from other principals. */
function matchesOf(attributes: readonly AttributeMatch[], options: TranslateOptions): Match[] {
  const matches: Match[] = [];
  for (const match of attributes) {
    const fields = FIELDS[match.attribute](match, options);
    const last = matches.at(-1);
    const isFree = last !== undefined && Object.keys(fields).every((field) => !(field in last));
    if (isFree) Object.assign(last, fields);
    else matches.push(fields);
  }
  return matches;
}

const FIELDS: Readonly<Record<L4Attribute, (match: AttributeMatch, options: TranslateOptions) => Match>> = {
  principal: (match, options) =>
    principals(match, (texts) => forAllTrustDomains(texts, domains(options)).map(pattern)),
  trustDomain: (match, options) =>
    principals(match, (texts) => forAllTrustDomains(texts, domains(options)).map(principalOf)),
  namespace: ({ values, notValues }) => ({
    ...given('namespaces', values.map(pattern)),
    ...given('notNamespaces', notValues.map(pattern)),
  }),
  serviceAccount: ({ values, notValues }) => ({
    ...given('serviceAccounts', values.map(account)),
    ...given('notServiceAccounts', notValues.map(account)),
  }),
  sourceIp: ({ values, notValues }) => ({
    ...given('sourceIps', values.map(range)),
    ...given('notSourceIps', notValues.map(range)),
  }),
  destinationIp: ({ values, notValues }) => ({
    ...given('destinationIps', values.map(range)),
    ...given('notDestinationIps', notValues.map(range)),
  }),
  destinationPort: ({ values, notValues }) => ({
    ...given('destinationPorts', values.map(Number)),
    ...given('notDestinationPorts', notValues.map(Number)),
  }),
};

function principals(
  { values, notValues }: AttributeMatch,
  translate: (texts: readonly string[]) => StringMatch[],
): Match {
  return {
    ...given('principals', translate(values)),
    ...given('notPrincipals', translate(notValues)),
  };
}

function given<Field extends keyof Match>(field: Field, list: NonNullable<Match[Field]> & unknown[]): Match {
  return list.length === 0 ? {} : { [field]: list };
}

function domains({ trustDomain, trustDomainAliases }: TranslateOptions): readonly string[] {
  return [trustDomain, ...trustDomainAliases];
}

function pattern(text: string): StringMatch {
  if (text === '*') return { presence: {} };
  if (text.startsWith('*')) return { suffix: text.slice(1) };
  return text.endsWith('*') ? { prefix: text.slice(0, -1) } : { exact: text };
}

/** The principals of a trust domain. */
function principalOf(trustDomain: string): StringMatch {
  return trustDomain.endsWith('*') ? pattern(trustDomain) : { prefix: `${trustDomain}/` };
}

function account(text: string): istio.security.ServiceAccountMatch.$Properties {
  const [namespace = '', serviceAccount = ''] = text.split('/');
  return { namespace, serviceAccount };
}

function range(text: string): istio.security.Address.$Properties {
  const [address = '', length] = text.split('/');
  return { address: addressBytes(address), length: Number(length) };
}
