import { option } from '../../mesh/config/index.js';
import { type AgentDump, readDump } from '../agent-dump.js';
import { askAll, unaskedNotes } from '../cluster/ask-all.js';
import type { Cluster } from '../cluster/cluster.js';
import { command, type Result } from '../command.js';
import { problemText } from '../controller-status.js';
import { CliError } from '../errors.js';

/** agent/capture's PodState. */
const STATES = ['captured', 'plain', 'waiting', 'refused', 'absent'] as const;

export const pods = command({
  path: 'pods',
  summary:
    "This node's pods, or without --node a cluster's: which are in the mesh, which are plain or refused, and why.",
  options: {
    namespace: option.text({ help: 'Only pods of this namespace.', metavar: 'NAME', fallback: '' }),
    state: option.choice({
      help: 'Only pods in this state.',
      fallback: 'any',
      of: ['any', ...STATES],
    }),
  },
  examples: [
    'culvertctl pods',
    'culvertctl pods --state refused',
    'culvertctl pods --namespace shop -o json',
    'culvertctl pods --kubeconfig ~/.kube/config',
  ],
  async run({ namespace, state }, { agent, cluster, node }) {
    const isShown = (pod: Pod) =>
      (namespace === '' || pod.namespace === namespace) && (state === 'any' || pod.state === state);
    // Where there is none, asking one says so.
    if (cluster !== null && node === '' && (await cluster.pods('agent')).length > 0)
      return await clusterPods(cluster, isShown);
    const dump = await readDump(agent, 'capture', 'manifests');
    const shown = podsOf(dump, isShown);
    return {
      json: shown,
      tables: [{ rows: [HEAD, ...shown.map(rowOf)] }],
      notes: notesOf(dump),
    };
  },
});

type Dump = Pick<AgentDump, 'capture' | 'manifests'>;
type Pod = AgentDump['capture']['pods'][number];

const HEAD = ['NAMESPACE', 'POD', 'STATE', 'UID', 'REASON'];

/** As the agents of all nodes have them. */
async function clusterPods(cluster: Cluster, isShown: (pod: Pod) => boolean): Promise<Result> {
  const agents = (await cluster.pods('agent')).filter(({ isEnding }) => !isEnding);
  const asked = await askAll(cluster, 'agent', agents, (admin) => readDump(admin, 'capture', 'manifests'));
  const failed = asked.filter(({ answer }) => answer instanceof CliError);
  const found = asked.flatMap(({ pod: { node }, answer }) =>
    answer === null || answer instanceof CliError
      ? []
      : podsOf(answer, isShown).map((pod) => ({ node, ...pod })),
  );
  return {
    json: found,
    tables: [{ rows: [['NODE', ...HEAD], ...found.map((pod) => [pod.node, ...rowOf(pod)])] }],
    notes: [
      ...asked.flatMap(({ pod: { node }, answer }) => {
        if (answer === null) return [];
        const notes = answer instanceof CliError ? [answer.message] : notesOf(answer);
        return notes.map((note) => `${node}: ${note}`);
      }),
      ...unaskedNotes(asked),
    ],
    exitCode: failed.length === 0 ? 0 : 1,
  };
}

function podsOf({ capture }: Dump, isShown: (pod: Pod) => boolean): readonly Pod[] {
  return capture.pods
    .filter(isShown)
    .toSorted((a, b) => `${a.namespace}/${a.name}`.localeCompare(`${b.namespace}/${b.name}`));
}

function rowOf(pod: Pod): string[] {
  return [pod.namespace, pod.name, pod.state, pod.uid, pod.reason];
}

function notesOf({ capture, manifests }: Dump): string[] {
  return [
    ...(capture.trouble === '' ? [] : [`nothing is enrolled: ${capture.trouble}`]),
    ...(capture.unknownPods === 0
      ? []
      : [`${capture.unknownPods} pod cgroups whose uid no manifest names: their connections are refused`]),
    ...manifests.problems.map((problem) => `manifest: ${problemText(problem)}`),
  ];
}
