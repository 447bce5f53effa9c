import { tryCanonicalAddress } from '../../mesh/common/address.js';
import { option } from '../../mesh/config/index.js';
import { Authorizer, type Explanation, rejectionText } from '../../mesh/policy/index.js';
import { createStore, identityOf, type StoreUpdate, type Workload } from '../../mesh/store/index.js';
import { readDump, storeUpdateOf } from '../agent-dump.js';
import { command, type Result } from '../command.js';
import { CliError } from '../errors.js';
import type { Rows } from '../output.js';

export const authzExplain = command({
  path: 'authz explain',
  isAnyNode: true,
  summary:
    'Whether the mesh would let a connection in, and which policy and rule decide it, by the configuration in force. Exit code 1 if not.',
  options: {
    from: option.text({
      help: 'Who connects: a pod as NAMESPACE/NAME, an identity spiffe://…, or an address without identity (plain text).',
      metavar: 'WHO',
    }),
    to: option.text({ help: 'The pod to reach: NAMESPACE/NAME, or its address.', metavar: 'POD' }),
    port: option.integer({ help: "The application's port.", min: 1, max: 65_535 }),
    plaintext: option.flag({ help: '--from is a pod that connects without the mesh.' }),
  },
  examples: [
    'culvertctl authz explain --from shop/cart-1 --to shop/catalog-1 --port 8080',
    'culvertctl authz explain --from spiffe://cluster.local/ns/shop/sa/cart --to 10.244.2.5 --port 8080 -o json',
    'culvertctl authz explain --from 192.0.2.7 --to shop/catalog-1 --port 8080',
  ],
  async run({ from, to, port, plaintext }, { agent }) {
    const { workloads, options } = await readDump(agent, 'workloads', 'options');
    const store = createStore();
    store.apply(storeUpdateOf(workloads));
    const own = workloadNamed(workloads, to);
    const source = sourceNamed(workloads, from, plaintext);
    const explanation = new Authorizer(options, { store }).explain(own, {
      ...source,
      destinationAddress: own.addresses[0] ?? '',
      destinationPort: port,
    });
    return resultOf(explanation);
  },
});

function workloadNamed({ workloads }: StoreUpdate, text: string): Workload {
  const address = tryCanonicalAddress(text);
  const found = workloads.find((one) =>
    address === null ? `${one.namespace}/${one.name}` === text : one.addresses.includes(address),
  );
  if (found !== undefined) return found;
  throw new CliError('NOT_FOUND', `no workload ${text} in this agent's configuration`, { name: text });
}

function sourceNamed(
  store: StoreUpdate,
  text: string,
  isPlaintext: boolean,
): { identity: string | null; sourceAddress: string } {
  if (text.startsWith('spiffe://')) return { identity: text, sourceAddress: '' };
  const address = tryCanonicalAddress(text);
  if (address !== null) return { identity: null, sourceAddress: address };
  const workload = workloadNamed(store, text);
  const identity = isPlaintext || workload.tunnelProtocol === 'none' ? null : identityOf(workload);
  return { identity, sourceAddress: workload.addresses[0] ?? '' };
}

function resultOf(explanation: Explanation): Result {
  const { connection, verdict, missing, policies } = explanation;
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
  const who = connection.identity ?? `${connection.sourceAddress} in plain text`;
  const at = `${connection.destinationAddress}:${connection.destinationPort}`;
  const rule = verdict.rule === null ? '' : `, rule ${verdict.rule}`;
  const why = verdict.allowed ? verdict.reason : rejectionText(verdict);
  const decided = verdict.policy === null ? why : `${why} (${verdict.policy}${rule})`;
  return {
    json: explanation,
    tables: policies.length === 0 ? [] : [{ rows }],
    notes: [
      ...missing.map((name) => `policy ${name} applies and is not known`),
      ...verdict.dryRun.map((one) => `dry run: ${one.policy} would deny it`),
      `${who} → ${at}: ${verdict.allowed ? 'allowed' : 'denied'}, ${decided}`,
    ],
    exitCode: verdict.allowed ? 0 : 1,
  };
}

/** `principals=a,b (yes) or namespaces=c (no)`; a clause without alternatives always holds. */
function clauseText({
  alternatives,
}: Explanation['policies'][number]['rules'][number]['clauses'][number]): string {
  if (alternatives.length === 0) return 'anything';
  const texts = alternatives.map(({ conditions }) =>
    conditions
      .map(({ field, wanted, holds }) => `${field}=${wanted.join(',')} (${holds ? 'yes' : 'no'})`)
      .join(' and '),
  );
  return texts.length === 1 ? texts[0]! : `(${texts.join(' or ')})`;
}
