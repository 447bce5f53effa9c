import { option, runCommand } from '../mesh/config/index.js';
import { clean } from './capture/index.js';
import { agentOptions } from './options.js';

/**
 * Frees a node whose agent is gone for good: removes everything that an agent has left in its kernel, so that every pod is plain. `culvertctl
 * node release` runs it on the node; `npm run clean` on this machine.
 */
await runCommand(
  {
    options: {
      bpffs: agentOptions.bpffs,
      force: option.flag({ help: 'Also under a live agent: its pods are plain until it starts anew.' }),
    },
    usage: 'node dist/agent/clean.js [options, as given to the agent]',
    envPrefix: 'CULVERT_',
    failure: 'nothing more was cleaned',
  },
  ({ bpffs, force }) => {
    const links = clean({ bpffsDir: bpffs, force });
    const detached = links === 0 ? 'nothing was attached' : `${links} programs detached`;
    process.stdout.write(`${bpffs}: ${detached}; no pins left\n`);
    return 0;
  },
);
