/**
 * What authorising adds to a connection: `node dist/mesh/policy/authorizer.bench.js [seconds per row]`. Policies of five rules, of which none but the
 * last decides: everything that could be compared is.
 */
import { policyWith, updateWith, workloadWith } from '../store/fixtures.js';
import { type AuthorizationMatch, type AuthorizationPolicy, createStore } from '../store/index.js';
import { Authorizer, type ConnectionFacts, emptyMatch } from './index.js';

/** One clause of a rule: what a `from` or a `to` becomes. */
type Clause = (serial: number) => readonly AuthorizationMatch[];

const principals: Clause = (i) => [
  { ...emptyMatch, principals: [{ kind: 'exact', value: `cluster.local/ns/ns-${i % 50}/sa/sa-${i}` }] },
];
const prefixes: Clause = (i) => [
  { ...emptyMatch, principals: [{ kind: 'prefix', value: `cluster.local/ns/other-${i % 50}/` }] },
];
const looseSuffixes: Clause = (i) => [
  { ...emptyMatch, principals: [{ kind: 'suffix', value: `-nobody-${i}` }] },
];
const namespace: Clause = () => [{ ...emptyMatch, namespaces: [{ kind: 'exact', value: 'client' }] }];
const blocks: Clause = (i) => [
  { ...emptyMatch, sourceIps: [{ address: `172.${i % 200}.${i >> 8}.0`, prefixLength: 24 }] },
];
const ports: Clause = (i) => [{ ...emptyMatch, destinationPorts: [9000 + i, 20_000 + i] }];
const samePort: Clause = () => [{ ...emptyMatch, destinationPorts: [8080] }];

const shapes: Readonly<Record<string, readonly Clause[]>> = {
  'principals and ports': [principals, ports],
  'principals, one port': [principals, samePort],
  'one namespace, ports': [namespace, ports],
  'namespace prefixes': [prefixes],
  'address blocks': [blocks],
  'address blocks of one namespace, one port': [namespace, blocks, samePort],
  'loose suffixes': [looseSuffixes],
};

const connections: readonly ConnectionFacts[] = Array.from({ length: 64 }, (_, i) => ({
  identity: `spiffe://cluster.local/ns/client/sa/sa-${i % 16}`,
  sourceAddress: `10.0.${i}.7`,
  destinationAddress: '10.1.0.9',
  destinationPort: 8080,
}));

function policiesOf(count: number, clauses: readonly Clause[]): AuthorizationPolicy[] {
  const allow = policyWith({
    key: 'zzz/allow',
    scope: 'global',
    action: 'allow',
    groups: [[[{ ...emptyMatch, namespaces: [{ kind: 'exact', value: 'client' }] }]]],
  });
  const others = Array.from({ length: count - 1 }, (_, p) =>
    policyWith({
      key: `ns/policy-${p}`,
      scope: 'global',
      action: p % 2 === 0 ? 'deny' : 'allow',
      groups: Array.from({ length: 5 }, (_unused, rule) =>
        // Never true, whatever the shape: what it asks for last is of another port.
        [...clauses.map((clause) => clause(p * 5 + rule)), [{ ...emptyMatch, notDestinationPorts: [8080] }]],
      ),
    }),
  );
  return [...others, allow];
}

/** Policies that a worker reads in one go; see agent/workers.ts. */
const partPolicies = 50;
/** After a change; by then rules are filed. */
const firstQuestions = 100;

function bench(
  count: number,
  clauses: readonly Clause[],
  seconds: number,
): { longestMs: number; us: number } {
  const store = createStore();
  const workload = workloadWith({ uid: 'w' });
  const policies = policiesOf(count, clauses);
  store.apply(updateWith({ policies }));
  const authorizer = new Authorizer({ trustDomain: 'cluster.local' }, { store });
  let longestMs = 0;
  const timed = (step: () => void) => {
    const startMs = performance.now();
    step();
    longestMs = Math.max(longestMs, performance.now() - startMs);
  };
  for (let at = 0; at < count; at += partPolicies)
    timed(() => authorizer.prepare(policies.slice(at, at + partPolicies)));
  for (let i = 0; i < firstQuestions; i++)
    timed(() => {
      const { policy } = authorizer.authorize(workload, connections[i % connections.length]!);
      if (policy !== 'zzz/allow') throw new Error(`decided by ${policy}`);
    });
  let done = 0;
  const round = (until: number) => {
    while (performance.now() < until)
      for (const connection of connections) if (authorizer.authorize(workload, connection).allowed) done++;
  };
  round(performance.now() + seconds * 300);
  done = 0;
  const begin = performance.now();
  round(begin + seconds * 1000);
  return { longestMs, us: ((performance.now() - begin) * 1000) / done };
}

const seconds = Number(process.argv[2] ?? 0.5);
for (const count of [20, 500]) {
  for (const [shape, clauses] of Object.entries(shapes)) {
    const { longestMs, us } = bench(count, clauses, seconds);
    process.stdout.write(
      `${count} policies of 5 rules, ${shape}: ${us.toFixed(2)} us, after a change at most ${longestMs.toFixed(1)} ms at a time\n`,
    );
  }
}
