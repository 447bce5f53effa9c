import { option } from '../../mesh/config/index.js';
import { Authorizer, type Explanation, rejectionText, type Verdict } from '../../mesh/policy/index.js';
import { createStore } from '../../mesh/store/index.js';
import type { AdminClient } from '../admin-client.js';
import { readDump, storeUpdateOf } from '../agent-dump.js';
import { command, type Result } from '../command.js';
import type { Rows } from '../output.js';
import {
  type Enforcement,
  enforcementAt,
  type Known,
  sourceNamed,
  type Target,
  targetNamed,
} from './authz-place.js';

/** Of one endpoint. */
interface Answer {
  /** `ns/name` of the pod. */
  readonly to: string;
  readonly enforcement: Enforcement;
  /** What the policies say, enforced or not. */
  readonly explanation: Explanation;
}

export const authzExplain = command({
  path: 'authz explain',
  isAnyNode: true,
  summary:
    'Whether the mesh would let a connection in, and which policy and rule decide it, by the configuration in force. Exit code 1 if not, 3 if it comes in because nothing enforces policies there.',
  options: {
    from: option.text({
      help: 'Who connects: a pod as NAMESPACE/NAME, an identity spiffe://…, or an address without identity (plain text).',
      metavar: 'WHO',
    }),
    to: option.text({
      help: 'Whom to reach: a pod as NAMESPACE/NAME or its address; a service as its hostname, NAMESPACE/NAME or VIP.',
      metavar: 'WHOM',
    }),
    port: option.integer({ help: "The pod's own port, or the service's.", min: 1, max: 65_535 }),
    plaintext: option.flag({ help: '--from is a pod that connects without the mesh.' }),
  },
  examples: [
    'culvertctl authz explain --from shop/cart-1 --to shop/catalog-1 --port 8080',
    'culvertctl authz explain --from shop/cart-1 --to catalog.shop.svc.cluster.local --port 80',
    'culvertctl authz explain --from spiffe://cluster.local/ns/shop/sa/cart --to 10.244.2.5 --port 8080 -o json',
    'culvertctl authz explain --from 192.0.2.7 --to shop/catalog-1 --port 8080',
  ],
  async run({ from, to, port, plaintext }, { agent, cluster, node }) {
    let known = await readKnown(agent);
    // What a pod's annotations exclude only the agent of its node knows.
    const [first, ...others] = targetNamed(to, port, known).places;
    const nodeOfPod = first!.workload.node;
    if (cluster !== null && node === '' && others.length === 0 && nodeOfPod !== known.options.node)
      known = await readKnown(cluster.agent(nodeOfPod, false)).catch(() => known);
    const { store, options } = known;
    const target = targetNamed(to, port, known);
    const { notes, ...source } = sourceNamed(from, plaintext, target, known);
    const authorizer = new Authorizer(options, { store });
    const answers = target.places.map((place): Answer => {
      const { workload } = place;
      const destinationAddress = workload.addresses[0] ?? '';
      return {
        to: `${workload.namespace}/${workload.name}`,
        enforcement: enforcementAt(place, source.identity === null, known),
        explanation: authorizer.explain(workload, {
          ...source,
          destinationAddress,
          destinationPort: place.port,
        }),
      };
    });
    return resultOf(target, answers, notes);
  },
});

async function readKnown(agent: AdminClient): Promise<Known> {
  const { workloads, options, capture } = await readDump(agent, 'workloads', 'options', 'capture');
  const store = createStore();
  const update = storeUpdateOf(workloads);
  store.apply(update);
  return { ...update, options, store, pods: capture.pods };
}

function resultOf(target: Target, answers: readonly Answer[], sourceNotes: readonly string[]): Result {
  const codes = answers.map(exitCodeOf);
  const [only] = answers as [Answer];
  const notes = [...target.notes, ...sourceNotes];
  return {
    json:
      target.service === null ? jsonOf(only) : { service: target.service, endpoints: answers.map(jsonOf) },
    tables: answers.length > 1 ? [{ rows: endpointsTable(answers) }] : policiesTable(only.explanation),
    notes: [...notes, ...answers.flatMap(notesOf)],
    exitCode: codes.find((code) => code === 1) ?? codes.find((code) => code !== 0) ?? 0,
  };
}

function exitCodeOf({ enforcement, explanation }: Answer): number {
  if (enforcement.by === 'nobody') return 3;
  return enforcement.by === 'agent' && explanation.verdict.allowed ? 0 : 1;
}

/** `verdict` is what happens; where nothing enforces the policies, `ifEnforced` what they say. */
function jsonOf({ to, enforcement, explanation }: Answer): unknown {
  if (enforcement.by === 'agent') return { to, enforcement, ...explanation };
  const { verdict, ...rest } = explanation;
  const reason = enforcement.by === 'nobody' ? 'not-enforced' : 'not-captured';
  const happens = { allowed: enforcement.by === 'nobody', policy: null, rule: null, reason, dryRun: [] };
  return { to, enforcement, ...rest, verdict: happens, ifEnforced: verdict };
}

function endpointsTable(answers: readonly Answer[]): Rows {
  return [
    ['POD', 'ADDRESS', 'PORT', 'COMES IN', 'WHY'],
    ...answers.map((answer) => {
      const { destinationAddress, destinationPort } = answer.explanation.connection;
      return [
        answer.to,
        destinationAddress,
        destinationPort,
        exitCodeOf(answer) === 1 ? 'no' : 'yes',
        whyOf(answer),
      ];
    }),
  ];
}

function policiesTable({ policies }: Explanation): Result['tables'] {
  if (policies.length === 0) return [];
  const rows: Rows = [
    ['POLICY', 'SCOPE', 'ACTION', 'RULE', 'MATCHES', 'CONDITIONS'],
    ...policies.flatMap((policy) =>
      policy.rules.map((rule) => [
        policy.policy,
        policy.scope,
        policy.dryRun ? `${policy.action} (dry run)` : policy.action,
        rule.rule,
        rule.matches ? 'yes' : 'no',
        policy.defect ?? rule.clauses.map(clauseText).join(' and '),
      ]),
    ),
  ];
  return [{ rows }];
}

function notesOf(answer: Answer): string[] {
  const { connection, verdict, missing } = answer.explanation;
  const { by } = answer.enforcement;
  const who = connection.identity ?? `${connection.sourceAddress || 'somebody'} in plain text`;
  const at = `${connection.destinationAddress}:${connection.destinationPort}`;
  const happens = by === 'nobody' ? 'not enforced' : exitCodeOf(answer) === 0 ? 'allowed' : 'denied';
  return [
    ...missing.map((name) => `policy ${name} applies and is not known`),
    ...verdict.dryRun.map((one) => `dry run: ${one.policy} would deny it`),
    `${who} → ${at}: ${happens}, ${whyOf(answer)}`,
  ];
}

function whyOf({ to, enforcement, explanation: { verdict } }: Answer): string {
  const pod = `${to} ${enforcement.reason}`;
  if (enforcement.by === 'refused') return `nothing gets in: ${pod}`;
  if (enforcement.by === 'nobody')
    return `whatever policies say it comes in: ${pod}${verdict.allowed ? '' : `. They would deny it: ${decisionText(verdict)}`}`;
  const decided = decisionText(verdict);
  return enforcement.reason.includes('; ') ? `${decided}; ${pod}` : decided;
}

function decisionText(verdict: Verdict): string {
  const rule = verdict.rule === null ? '' : `, rule ${verdict.rule}`;
  const why = verdict.allowed ? verdict.reason : rejectionText(verdict);
  return verdict.policy === null ? why : `${why} (${verdict.policy}${rule})`;
}

/** What the controller makes of a rule that only a waypoint could judge. */
const NEVER = 'never: L4 cannot judge it (reports of the controller say why)';

/** `principals=a,b (yes) or namespaces=c (no)`; a clause without alternatives always holds, an alternative without conditions never. */
function clauseText({
  alternatives,
}: Explanation['policies'][number]['rules'][number]['clauses'][number]): string {
  if (alternatives.length === 0) return 'anything';
  const texts = alternatives.map(({ conditions }) =>
    conditions.length === 0
      ? NEVER
      : conditions
          .map(({ field, wanted, holds }) => `${field}=${wanted.join(',')} (${holds ? 'yes' : 'no'})`)
          .join(' and '),
  );
  return texts.length === 1 ? texts[0]! : `(${texts.join(' or ')})`;
}
