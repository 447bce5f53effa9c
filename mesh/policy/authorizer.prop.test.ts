import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { policyWith, updateWith, workloadWith } from '../store/fixtures.js';
import {
  type AddressRange,
  type AuthorizationMatch,
  type AuthorizationPolicy,
  createStore,
  type StringMatch,
  type Workload,
} from '../store/index.js';
import { emptyMatch } from './conditions.js';
import { Authorizer, type ConnectionFacts, type Decision, type Verdict } from './index.js';

const trustDomains = ['cluster.local', 'old.example'];

/** Sheet 3.6 word for word, over everything each time. The oracle. */
function naiveVerdict(
  policies: readonly AuthorizationPolicy[],
  workload: Workload,
  connection: ConnectionFacts,
): Verdict {
  const named = workload.authorizationPolicies;
  const [missing] = named.filter((key) => !policies.some((policy) => policy.key === key)).sort();
  if (missing !== undefined) return denial({ policy: missing, rule: null, reason: 'policy-missing' });
  const applying = policies
    .filter(
      ({ key, scope, namespace }) =>
        named.includes(key) ||
        scope === 'global' ||
        (scope === 'namespace' && namespace === workload.namespace),
    )
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  const enforced = applying.filter((policy) => !policy.dryRun);
  const refusals = refusalsOf(enforced, connection, false);
  if (refusals.length > 0) return denial(refusals[0]!);
  const allows = enforced.filter((policy) => policy.action === 'allow');
  const allowed = allows.flatMap((policy) => decisionsOf(policy, connection))[0];
  if (allows.length > 0 && allowed === undefined)
    return denial({ policy: null, rule: null, reason: 'not-allowed' });
  const onTrial = applying.filter((policy) => policy.dryRun);
  const dryRun = refusalsOf(onTrial, connection, true);
  const trialAllows = onTrial.filter((policy) => policy.action === 'allow' && policy.defect === null);
  const isAllowedOnTrial = trialAllows.some((policy) => decisionsOf(policy, connection).length > 0);
  if (onTrial.some((policy) => policy.action === 'allow') && allowed === undefined && !isAllowedOnTrial)
    dryRun.push({ policy: null, rule: null, reason: 'not-allowed' });
  const decision = allowed ?? { policy: null, rule: null, reason: 'no-allow-policy' as const };
  return { allowed: true, ...decision, dryRun };
}

function denial(decision: Decision): Verdict {
  return { allowed: false, ...decision, dryRun: [] };
}

/** The first defect, then each DENY that matches. */
function refusalsOf(
  policies: readonly AuthorizationPolicy[],
  connection: ConnectionFacts,
  ofEach: boolean,
): Decision[] {
  const bad = policies.find((policy) => policy.defect !== null);
  const denials = policies
    .filter((policy) => policy.action === 'deny' && policy.defect === null)
    .flatMap((policy) => decisionsOf(policy, connection).slice(0, 1));
  const all: Decision[] =
    bad === undefined ? denials : [{ policy: bad.key, rule: null, reason: 'policy-defect' }, ...denials];
  return ofEach ? all : all.slice(0, 1);
}

function decisionsOf(policy: AuthorizationPolicy, connection: ConnectionFacts): Decision[] {
  if (policy.defect !== null) return [];
  return policy.groups.flatMap((group, rule): Decision[] => {
    const matches = group.every(
      (clause) => clause.length === 0 || clause.some((match) => naiveMatch(match, connection)),
    );
    return matches
      ? [{ policy: policy.key, rule, reason: policy.action === 'allow' ? 'allowed' : 'denied' }]
      : [];
  });
}

function naiveMatch(match: AuthorizationMatch, connection: ConnectionFacts): boolean {
  const { identity, sourceAddress, destinationAddress, destinationPort } = connection;
  const parts = identity === null ? null : /^spiffe:\/\/([^/]+)\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(identity);
  const [, domain, namespace, account] = parts ?? [];
  const domains = domain !== undefined && trustDomains.includes(domain) ? trustDomains : [domain];
  const principals = parts === null ? [] : domains.map((one) => `${one}/ns/${namespace}/sa/${account}`);
  const namespaces = parts === null ? [] : [namespace!];
  const isAccount = (one: { namespace: string; serviceAccount: string }) =>
    one.namespace === namespace && one.serviceAccount === account;
  const conditions = [
    list(match.principals, match.notPrincipals, (one) => principals.some((text) => isText(one, text))),
    list(match.namespaces, match.notNamespaces, (one) => namespaces.some((text) => isText(one, text))),
    list(match.serviceAccounts, match.notServiceAccounts, isAccount),
    list(match.sourceIps, match.notSourceIps, (one) => contains(one, sourceAddress)),
    list(match.destinationIps, match.notDestinationIps, (one) => contains(one, destinationAddress)),
    list(match.destinationPorts, match.notDestinationPorts, (one) => one === destinationPort),
  ];
  return Object.values(match).some((values) => values.length > 0) && conditions.every(Boolean);
}

function list<Value>(
  positive: readonly Value[],
  negative: readonly Value[],
  isTrue: (value: Value) => boolean,
): boolean {
  return (positive.length === 0 || positive.some(isTrue)) && !negative.some(isTrue);
}

function isText(match: StringMatch, text: string): boolean {
  if (match.kind === 'presence') return text.length > 0;
  if (match.kind === 'exact') return text === match.value;
  return match.kind === 'prefix' ? text.startsWith(match.value) : text.endsWith(match.value);
}

function contains(range: AddressRange, address: string): boolean {
  if (range.address.includes(':') !== address.includes(':')) return false;
  return bitsOf(range.address).slice(0, range.prefixLength) === bitsOf(address).slice(0, range.prefixLength);
}

/** IPv6 here only as `a::b`. */
function bitsOf(address: string): string {
  if (!address.includes(':'))
    return address
      .split('.')
      .map((part) => Number(part).toString(2).padStart(8, '0'))
      .join('');
  const [head, tail] = address.split('::') as [string, string];
  const group = (text: string) =>
    Number.parseInt(text || '0', 16)
      .toString(2)
      .padStart(16, '0');
  return group(head) + '0'.repeat(96) + group(tail);
}

// Few values of everything, so that they meet.
const pick = <Value>(...values: readonly Value[]) => fc.constantFrom(...values);
const accounts = ['ns/a/sa/one', 'ns/a/sa/two', 'ns/b/sa/one'];
const identities = ['cluster.local', 'old.example', 'foreign'].flatMap((domain) =>
  accounts.map((account) => `spiffe://${domain}/${account}`),
);
const principalTexts = [...identities.map((one) => one.slice('spiffe://'.length)), identities[0]!];
const principal = fc.oneof(
  pick(...principalTexts).map((value) => ({ kind: 'exact' as const, value })),
  pick('cluster', 'cluster.local/ns/a/', 'old.example/ns/', 'old.example/ns/b/sa/o', '').map((value) => ({
    kind: 'prefix' as const,
    value,
  })),
  pick('/sa/one', '/ns/a/sa/one', 'ns/b/sa/one', 'e', 'ne', 'local/ns/a/sa/two', '').map((value) => ({
    kind: 'suffix' as const,
    value,
  })),
  fc.constant({ kind: 'presence' as const }),
);
const namespaceMatch = fc.oneof(
  pick('a', 'b', 'ab').map((value) => ({ kind: 'exact' as const, value })),
  pick('a', 'b', '').map((value) => ({ kind: 'prefix' as const, value })),
  pick('a', 'b').map((value) => ({ kind: 'suffix' as const, value })),
  fc.constant({ kind: 'presence' as const }),
);
const range = pick(
  { address: '10.0.0.1', prefixLength: 32 },
  { address: '10.0.0.0', prefixLength: 31 },
  { address: '10.0.0.3', prefixLength: 8 },
  { address: '0.0.0.0', prefixLength: 0 },
  { address: 'fd00::1', prefixLength: 127 },
  { address: 'fd00::', prefixLength: 16 },
  { address: '::', prefixLength: 0 },
);
const account = fc.record({ namespace: pick('a', 'b'), serviceAccount: pick('one', 'two') });
/** Rarely anything: a match in which all is set never matches. */
const some = <Value>(value: fc.Arbitrary<Value>) =>
  fc
    .integer({ min: 0, max: 5 })
    .chain((roll) => (roll < 4 ? fc.constant<Value[]>([]) : fc.array(value, { maxLength: 3 })));
const match = fc.record({
  namespaces: some(namespaceMatch),
  notNamespaces: some(namespaceMatch),
  principals: some(principal),
  notPrincipals: some(principal),
  sourceIps: some(range),
  notSourceIps: some(range),
  destinationIps: some(range),
  notDestinationIps: some(range),
  destinationPorts: some(pick(80, 81, 82)),
  notDestinationPorts: some(pick(80, 81, 82)),
  serviceAccounts: some(account),
  notServiceAccounts: some(account),
});
const group = fc.array(fc.array(match, { maxLength: 2 }), { maxLength: 3 });
const policy = fc
  .record({
    key: pick('a/p', 'a/q', 'a/r', 'b/p', 'root/p'),
    namespace: pick('a', 'b'),
    scope: pick('global', 'namespace', 'workload-selector' as const),
    action: pick('allow', 'deny' as const),
    dryRun: fc.integer({ min: 0, max: 3 }).map((roll) => roll === 0),
    groups: fc.array(group, { maxLength: 3 }),
    defect: fc.integer({ min: 0, max: 30 }).map((roll) => (roll === 0 ? 'spoilt' : null)),
  })
  .map((fields) => policyWith(fields as AuthorizationPolicy));
const policies = fc.uniqueArray(policy, { maxLength: 4, selector: (one) => one.key });
const connection: fc.Arbitrary<ConnectionFacts> = fc.record({
  identity: fc.option(pick(...identities), { freq: 4 }),
  sourceAddress: pick('10.0.0.1', '10.0.0.2', '11.0.0.1', 'fd00::1', 'fe00::1'),
  destinationAddress: pick('10.0.0.1', '10.0.0.9', 'fd00::1'),
  destinationPort: pick(80, 81, 82, 83),
});
const workload = fc
  .record({
    uid: fc.constant('w'),
    namespace: pick('a', 'b'),
    authorizationPolicies: fc.uniqueArray(pick('a/p', 'a/q', 'b/p'), { maxLength: 2 }),
  })
  .map(workloadWith);

// Many rules, of which few match.
const serial = fc.integer({ min: 0, max: 99 });
const sparsePrincipal = serial.chain((n) =>
  pick(
    { kind: 'exact' as const, value: `cluster.local/ns/a/sa/${n}-x` },
    { kind: 'prefix' as const, value: `cluster.local/ns/a/sa/${n}-` },
    { kind: 'suffix' as const, value: `/${n}-x` },
  ),
);
const sparseMatch = fc.record({
  ...Object.fromEntries(Object.keys(emptyMatch).map((field) => [field, fc.constant([])])),
  principals: fc.array(sparsePrincipal, { minLength: 1, maxLength: 2 }),
  destinationPorts: pick([], [80], [81]),
});
const sparsePolicy = fc
  .record({
    key: fc.constant('a/p'),
    scope: fc.constant('global' as const),
    action: fc.integer({ min: 0, max: 3 }).map((roll) => (roll === 0 ? 'deny' : ('allow' as const))),
    dryRun: fc.integer({ min: 0, max: 3 }).map((roll) => roll === 0),
    groups: fc.array(
      sparseMatch.map((one) => [[one]]),
      { minLength: 3, maxLength: 5 },
    ),
  })
  .map((fields) => policyWith(fields as unknown as AuthorizationPolicy));
const sparseConnection = fc.record({ n: serial, port: pick(80, 81) }).map(({ n, port }) => ({
  identity: `spiffe://cluster.local/ns/a/sa/${n}-x`,
  sourceAddress: '10.0.0.1',
  destinationAddress: '10.0.0.2',
  destinationPort: port,
}));

describe('the verdict', () => {
  test('is a denial as long as policies are not known', () => {
    const store = createStore();
    const authorizer = new Authorizer({ trustDomain: 'cluster.local' }, { store });
    const facts = {
      identity: null,
      sourceAddress: '10.0.0.1',
      destinationAddress: '10.0.0.2',
      destinationPort: 80,
    };
    const verdict = () => authorizer.authorize(workloadWith({ uid: 'w' }), facts);
    store.apply(updateWith({ policiesAreComplete: false }));
    expect(verdict()).toEqual(denial({ policy: null, rule: null, reason: 'policies-unknown' }));
    store.apply(updateWith({ policiesAreComplete: true }));
    expect(verdict()).toMatchObject({ allowed: true, reason: 'no-allow-policy' });
  });

  test('is the naive one, for any policies, workload and connection, and after any change', () => {
    const reasons = new Map<string, number>();
    fc.assert(
      fc.property(
        policies,
        fc.array(policy, { maxLength: 2 }),
        workload,
        fc.array(connection, { minLength: 1, maxLength: 8 }),
        (before, changes, to, connections) => {
          const store = createStore();
          const authorizer = new Authorizer(
            { trustDomain: trustDomains[0]!, trustDomainAliases: trustDomains.slice(1) },
            { store },
          );
          store.apply(updateWith({ policies: before }));
          let now = before;
          for (const change of [null, ...changes]) {
            if (change !== null) {
              store.apply(updateWith({ policies: [change] }));
              now = [...now.filter((one) => one.key !== change.key), change];
            }
            for (const one of connections) {
              const verdict = authorizer.authorize(to, one);
              expect(verdict).toEqual(naiveVerdict(now, to, one));
              expect(authorizer.explain(to, one).verdict).toEqual(verdict);
              reasons.set(verdict.reason, (reasons.get(verdict.reason) ?? 0) + 1);
            }
          }
        },
      ),
      { seed: 20261122, numRuns: 1500 },
    );
    // The generators reach every reason, and not by chance alone.
    expect(reasons.size).toBe(6);
    expect(Math.min(...reasons.values())).toBeGreaterThan(20);
  });

  test('is the naive one, too, while an index of many rules is being made', () => {
    const to = workloadWith({ uid: 'w', namespace: 'a' });
    const reasons = new Set<string>();
    fc.assert(
      fc.property(
        fc.array(sparsePolicy, { minLength: 60, maxLength: 150 }),
        fc.array(sparseConnection, { minLength: 6, maxLength: 12 }),
        (some, connections) => {
          const now = some.map((one, i) => ({ ...one, key: `a/${i}` }));
          const store = createStore();
          const authorizer = new Authorizer({ trustDomain: 'cluster.local' }, { store });
          authorizer.prepare(now.slice(30));
          store.apply(updateWith({ policies: now }));
          for (const one of connections) {
            const verdict = authorizer.authorize(to, one);
            expect(verdict).toEqual(naiveVerdict(now, to, one));
            reasons.add(verdict.reason);
          }
        },
      ),
      { seed: 20261122, numRuns: 100 },
    );
    expect([...reasons].sort()).toEqual(['allowed', 'denied', 'not-allowed']);
  });

  test('of explain: a policy is said to match where one of its rules decides alone', () => {
    fc.assert(
      fc.property(policy, connection, (one, facts) => {
        const sound = { ...one, scope: 'global' as const, dryRun: false, defect: null };
        const store = createStore();
        const authorizer = new Authorizer({ trustDomain: 'cluster.local' }, { store });
        store.apply(updateWith({ policies: [sound] }));
        const { verdict, policies: trails } = authorizer.explain(workloadWith({ uid: 'w' }), facts);
        expect(trails[0]!.matches).toBe(verdict.allowed === (sound.action === 'allow'));
        expect(trails[0]!.rules.findIndex((rule) => rule.matches)).toBe(verdict.rule ?? -1);
      }),
      { seed: 20261122, numRuns: 500 },
    );
  });
});
