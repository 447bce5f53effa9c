import { option } from '../../mesh/config/index.js';
import { readDump } from '../agent-dump.js';
import { command } from '../command.js';
import { problemText } from '../controller-status.js';

/** agent/capture's PodState. */
const STATES = ['captured', 'plain', 'waiting', 'refused', 'absent'] as const;

export const pods = command({
  path: 'pods',
  summary: "This node's pods: which are in the mesh, which are plain, which are refused and why.",
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
  ],
  async run({ namespace, state }, { agent }) {
    const { capture, manifests } = await readDump(agent, 'capture', 'manifests');
    const shown = capture.pods
      .filter(
        (pod) =>
          (namespace === '' || pod.namespace === namespace) && (state === 'any' || pod.state === state),
      )
      .toSorted((a, b) => `${a.namespace}/${a.name}`.localeCompare(`${b.namespace}/${b.name}`));
    const rows = shown.map((pod) => [pod.namespace, pod.name, pod.state, pod.uid, pod.reason]);
    return {
      json: shown,
      tables: [{ rows: [['NAMESPACE', 'POD', 'STATE', 'UID', 'REASON'], ...rows] }],
      notes: [
        ...(capture.trouble === '' ? [] : [`nothing is enrolled: ${capture.trouble}`]),
        ...(capture.unknownPods === 0
          ? []
          : [
              `${capture.unknownPods} pod cgroups whose uid no manifest names: their connections are refused`,
            ]),
        ...manifests.problems.map((problem) => `manifest: ${problemText(problem)}`),
      ],
    };
  },
});
