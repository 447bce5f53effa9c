import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeObject,
  type MeshObject,
  MODEL_DEFAULTS,
  Model,
  type ModelChange,
} from '../control/model/index.js';
import { TRANSLATE_DEFAULTS, translateAuthorizations } from '../control/translate/index.js';
import { Authorizer, type ConnectionFacts } from '../mesh/policy/index.js';
import { istio } from '../mesh/proto/index.js';
import { updateWith, workloadWith } from '../mesh/store/fixtures.js';
import { createStore } from '../mesh/store/index.js';
import { decodeAuthorization } from '../mesh/xds/index.js';

/**
 * Manifest → model → Authorization → bytes → store → verdict, against a direct reading of the YAML (mesh-apis.md 2.7). What L4 cannot tell is
 * drawn at random for each connection: whatever it is, nothing is allowed that the policy read in full would deny.
 */

const [own, former] = ['new.example', 'old.example'];
const options = { ...TRANSLATE_DEFAULTS, trustDomain: own, trustDomainAliases: [former] };

type Lists = Readonly<Record<string, readonly string[]>>;
interface Rule {
  readonly from?: readonly { readonly source: Lists }[];
  readonly to?: readonly { readonly operation: Lists }[];
  readonly when?: readonly {
    readonly key: string;
    readonly values?: string[];
    readonly notValues?: string[];
  }[];
}
interface PolicySpec {
  readonly action: 'ALLOW' | 'DENY' | 'CUSTOM';
  readonly rules: readonly Rule[];
}
interface Connection extends ConnectionFacts {
  /** What holds of it at L7, by field and value. */
  readonly l7: (field: string, value: string) => boolean;
}

/** The whole policy language, attribute by attribute, without any index. */
function readInFull(policies: readonly PolicySpec[], connection: Connection): boolean {
  const matches = (policy: PolicySpec) => policy.rules.some((rule) => ruleHolds(rule, connection));
  // The external provider of CUSTOM may refuse what it is asked about.
  if (policies.some((policy) => policy.action !== 'ALLOW' && matches(policy))) return false;
  const allows = policies.filter(({ action }) => action === 'ALLOW');
  return allows.length === 0 || allows.some(matches);
}

function ruleHolds({ from, to, when }: Rule, connection: Connection): boolean {
  return (
    (from === undefined || from.some(({ source }) => allHold(source, connection))) &&
    (to === undefined || to.some(({ operation }) => allHold(operation, connection))) &&
    (when ?? []).every(({ key, values, notValues }) =>
      allHold(
        { ...(values && { [key]: values }), ...(notValues && { [`not:${key}`]: notValues }) },
        connection,
      ),
    )
  );
}

function allHold(lists: Lists, connection: Connection): boolean {
  return Object.entries(lists).every(([field, values]) => {
    const negative = /^not(?::(.+)|([A-Z])(.+))$/.exec(field);
    const name = negative === null ? field : (negative[1] ?? negative[2]!.toLowerCase() + negative[3]!);
    return values.some((value) => holds(name, value, connection)) === (negative === null);
  });
}

function holds(field: string, value: string, connection: Connection): boolean {
  const [, domain, namespace, account] =
    /^spiffe:\/\/([^/]+)\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(connection.identity ?? '') ?? [];
  const domains =
    domain === own || domain === former ? [own, former, 'cluster.local'] : domain ? [domain] : [];
  switch (field) {
    case 'principals':
    case 'source.principal':
      return domains.some((one) => isLike(value, `${one}/ns/${namespace}/sa/${account}`));
    case 'trustDomains':
    case 'source.trustDomain':
      return domains.some((one) => isLike(value, one));
    case 'namespaces':
    case 'source.namespace':
      return namespace !== undefined && isLike(value, namespace);
    case 'serviceAccounts':
    case 'source.serviceAccount':
      return (value.includes('/') ? value : `shop/${value}`) === `${namespace}/${account}`;
    case 'ipBlocks':
    case 'source.ip':
      return isInside(value, connection.sourceAddress);
    case 'destination.ip':
      return isInside(value, connection.destinationAddress);
    case 'ports':
    case 'destination.port':
      return Number(value) === connection.destinationPort;
    default:
      return connection.l7(field, value);
  }
}

function isLike(pattern: string, text: string): boolean {
  const body = pattern.split('*').map((part) => part.replaceAll('.', '\\.'));
  return new RegExp(`^${body.join('.*')}$`).test(text);
}

/** Here all blocks are /8, /31 or single addresses. */
function isInside(block: string, address: string): boolean {
  const [base, bits = '32'] = block.split('/') as [string, string?];
  const number = (text: string) => text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
  const size = 2 ** (32 - Number(bits));
  return Math.floor(number(base) / size) === Math.floor(number(address) / size);
}

const pick = <Value>(...values: readonly Value[]) => fc.constantFrom(...values);
const domainNames = [own, former, 'cluster.local', 'foreign.example'];
const principals = [
  ...domainNames.flatMap((one) => [`${one}/ns/shop/sa/web`, `${one}/ns/test/*`, `${one}/*`]),
  '*',
  '*/ns/shop/sa/web',
  '*/sa/api',
  'new*',
  'foreign*',
];
const l4: Readonly<Record<string, readonly string[]>> = {
  principals,
  namespaces: ['shop', 'test', 'te*', '*op', '*'],
  trustDomains: [...domainNames, '*', 'foreign*', '*.example'],
  ipBlocks: ['10.0.0.1', '10.0.0.0/31', '10.0.0.0/8'],
  ports: ['80', '81'],
  serviceAccounts: ['web', 'test/api'],
  'destination.ip': ['10.9.0.1', '10.0.0.0/8'],
};
const l7 = {
  methods: ['GET'],
  hosts: ['a.example'],
  requestPrincipals: ['*'],
  remoteIpBlocks: ['10.0.0.0/8'],
};
const negative = (field: string) => `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;

/** One to three of these fields, positive or negative, each with one or two values. */
const listsOf = (fields: readonly string[]) =>
  fc
    .uniqueArray(
      fc
        .tuple(pick(...fields), fc.boolean())
        .chain(([field, isNegative]) =>
          fc
            .uniqueArray(pick(...({ ...l4, ...l7 } as typeof l4)[field]!), { minLength: 1, maxLength: 2 })
            .map((values) => [isNegative ? negative(field) : field, values] as const),
        ),
      { minLength: 1, maxLength: 3, selector: ([field]) => field },
    )
    .map((entries): Lists => Object.fromEntries(entries));

const source = (more: readonly string[]) =>
  fc.oneof(
    { weight: 4, arbitrary: listsOf(['principals', 'namespaces', 'trustDomains', 'ipBlocks', ...more]) },
    { weight: 1, arbitrary: listsOf(['serviceAccounts', 'ipBlocks']) },
  );
const conditionKeys: Readonly<Record<string, string>> = {
  'source.principal': 'principals',
  'source.namespace': 'namespaces',
  'source.trustDomain': 'trustDomains',
  'source.serviceAccount': 'serviceAccounts',
  'source.ip': 'ipBlocks',
  'destination.ip': 'destination.ip',
  'destination.port': 'ports',
};
const condition = (hasL7: boolean) =>
  pick(...Object.keys(conditionKeys), ...(hasL7 ? ['request.headers[x]'] : [])).chain((key) => {
    const values = fc.uniqueArray(pick(...(l4[conditionKeys[key] ?? 'ports'] ?? [])), {
      minLength: 1,
      maxLength: 2,
    });
    return fc.oneof(
      values.map((some) => ({ key, values: some })),
      values.map((some) => ({ key, notValues: some })),
      fc.tuple(values, values).map(([some, others]) => ({ key, values: some, notValues: others })),
    );
  });

const ruleWith = (hasL7: boolean) =>
  fc.record(
    {
      from: fc.array(
        source(hasL7 ? ['requestPrincipals', 'remoteIpBlocks'] : []).map((one) => ({ source: one })),
        { minLength: 1, maxLength: 3 },
      ),
      to: fc.array(
        listsOf(hasL7 ? ['ports', 'methods', 'hosts'] : ['ports']).map((one) => ({ operation: one })),
        { minLength: 1, maxLength: 2 },
      ),
      when: fc.array(condition(hasL7), { minLength: 1, maxLength: 2 }),
    },
    { requiredKeys: [] },
  );
const policiesWith = (hasL7: boolean) =>
  fc.array(
    fc.record({
      action: hasL7
        ? pick<PolicySpec['action']>('ALLOW', 'DENY', 'CUSTOM')
        : pick<PolicySpec['action']>('ALLOW', 'DENY'),
      rules: fc.array(ruleWith(hasL7) as fc.Arbitrary<Rule>, { maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 3 },
  );

const connection = fc.record({
  identity: fc.oneof(
    fc.constant(null),
    fc
      .tuple(pick(own, former, 'foreign.example'), pick('shop', 'test'), pick('web', 'api'))
      .map(([domain, namespace, account]) => `spiffe://${domain}/ns/${namespace}/sa/${account}`),
  ),
  sourceAddress: pick('10.0.0.1', '10.0.0.2', '192.168.0.1'),
  destinationAddress: pick('10.9.0.1', '172.16.0.1'),
  destinationPort: pick(80, 81, 82),
  l7: fc.func(fc.boolean()),
});

function authorizerOf(policies: readonly PolicySpec[]): (facts: ConnectionFacts) => boolean {
  const upserted = new Map<string, MeshObject>();
  for (const [index, { action, rules }] of policies.entries()) {
    const decoded = decodeObject({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: `p${index}`, namespace: 'shop' },
      spec: { action, rules, ...(action === 'CUSTOM' && { provider: { name: 'x' } }) },
    });
    if (decoded.outcome !== 'object') throw new Error(JSON.stringify(decoded));
    upserted.set(decoded.key, decoded.value);
  }
  const changes: ModelChange[] = [];
  const model = new Model(MODEL_DEFAULTS, { onChange: (change) => changes.push(change) });
  model.apply({ upserted, removed: [] });
  model.flush();
  const { resources } = translateAuthorizations(model, changes[0]!.policies, options);
  const { Authorization } = istio.security;
  const sent = [...resources.values()].map((resource) => {
    const { policy, problems } = decodeAuthorization(
      resource!.name,
      Authorization.encode(resource!.message).finish(),
    );
    expect(problems).toEqual([]);
    return policy;
  });
  const store = createStore();
  const workload = workloadWith({ uid: 'w', namespace: 'shop' });
  store.apply(updateWith({ snapshot: true, workloads: [workload], policies: sent }));
  const authorizer = new Authorizer({ trustDomain: own, trustDomainAliases: [former] }, { store });
  return (facts) => authorizer.authorize(workload, facts).allowed;
}

describe('an AuthorizationPolicy, translated and evaluated', () => {
  const runs = { numRuns: 150, seed: 7 };

  test('of L4 attributes only: exactly what its YAML says', () => {
    const nothing = (lists: Lists): boolean =>
      Object.entries(lists).some(
        ([field, values]) =>
          /rustDomain/.test(field) && values.some((value) => value.length > 1 && value.startsWith('*')),
      );
    // A trust domain by its end is beyond L4: below.
    const isExact = ({ rules }: PolicySpec) =>
      !rules.some(
        ({ from, when }) =>
          from?.some(({ source: one }) => nothing(one)) ||
          when?.some(({ key, values, notValues }) =>
            nothing({ [key]: [...(values ?? []), ...(notValues ?? [])] }),
          ),
      );
    fc.assert(
      fc.property(
        policiesWith(false),
        fc.array(connection, { minLength: 20, maxLength: 20 }),
        (policies, list) => {
          fc.pre(policies.every(isExact));
          const isAllowed = authorizerOf(policies);
          for (const one of list) expect(isAllowed(one)).toBe(readInFull(policies, one));
        },
      ),
      runs,
    );
  });

  test('of any attributes: allows nothing that its YAML, whatever holds at L7, would deny', () => {
    let allowed = 0;
    fc.assert(
      fc.property(
        policiesWith(true),
        fc.array(connection, { minLength: 20, maxLength: 20 }),
        (policies, list) => {
          const isAllowed = authorizerOf(policies);
          for (const one of list) {
            if (!isAllowed(one)) continue;
            allowed++;
            expect(readInFull(policies, one)).toBe(true);
          }
        },
      ),
      runs,
    );
    expect(allowed).toBeGreaterThan(100);
  });
});
