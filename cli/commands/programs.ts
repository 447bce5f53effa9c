import { option } from '../../mesh/config/index.js';
import { command } from '../command.js';
import { bpffsOption } from './bpffs-option.js';

/** What other programs of this installation do; they never import each other, so culvertctl runs them. */

export const validate = command({
  path: 'validate',
  isLocal: true,
  summary:
    'Reads manifests as the controller would, and says what is wrong with them. Exit code 1 if anything is.',
  options: {
    folder: option.text({ help: 'A folder, or a file, of manifests.', metavar: 'DIR' }),
  },
  positional: 'folder',
  examples: ['culvertctl validate /etc/culvert/manifests', 'culvertctl validate policies.yaml -o json'],
  run: ({ folder }, { runProgram, output }) =>
    runProgram('control/validate.js', [
      ...['--manifests', folder],
      ...['--output', output === 'json' ? 'json' : 'text'],
    ]),
});

export const token = command({
  path: 'token',
  isLocal: true,
  summary: "Mints the join token of one node, with the key in the controller's state folder.",
  options: {
    node: option.text({ help: 'The one node whose agent may use it.', metavar: 'NAME' }),
    state: option.text({
      help: "The controller's state folder.",
      metavar: 'DIR',
      fallback: '/var/lib/culvert',
    }),
    lifetime: option.text({ help: 'How long it is good: 24h.', metavar: 'DURATION', fallback: '24h' }),
    out: option.text({
      help: 'Written with mode 600; none: standard output.',
      metavar: 'FILE',
      fallback: '',
    }),
  },
  positional: 'node',
  printsItself: true,
  examples: [
    'culvertctl token n1 --out n1.token',
    'culvertctl token n1 --state /var/lib/culvert --lifetime 720h',
  ],
  run({ node, state, lifetime, out }, { runProgram }) {
    const file = out === '' ? [] : ['--out', out];
    return runProgram('control/token.js', [
      '--node',
      node,
      '--state',
      state,
      '--lifetime',
      lifetime,
      ...file,
    ]);
  },
});

export const nodeRelease = command({
  path: 'node release',
  isLocal: true,
  summary:
    "Frees a node whose agent is gone for good: takes the mesh's programs out of the kernel. Its pods are in clear afterwards.",
  options: {
    bpffs: bpffsOption,
    cniBinDir: option.text({
      help: 'Where the container runtime has its CNI plugins, as given to the agent: ours is taken out.',
      fallback: '/opt/cni/bin',
      metavar: 'DIR',
    }),
    cniConfDir: option.text({
      help: 'Where its network configuration is.',
      fallback: '/etc/cni/net.d',
      metavar: 'DIR',
    }),
    force: option.flag({ help: 'Also while an agent lives.' }),
  },
  printsItself: true,
  examples: [
    'culvertctl node release',
    'culvertctl node release --force',
    'culvertctl node release --cni-conf-dir /var/lib/rancher/k3s/agent/etc/cni/net.d',
  ],
  run: ({ bpffs, cniBinDir, cniConfDir, force }, { runProgram }) =>
    runProgram('agent/clean.js', [
      ...['--bpffs', bpffs, '--cni-bin-dir', cniBinDir, '--cni-conf-dir', cniConfDir],
      ...(force ? ['--force'] : []),
    ]),
});
