import { option, runCommand } from '../mesh/config/index.js';
import { clean } from './capture/index.js';
import { uninstallPlugin } from './cni/index.js';
import { agentOptions } from './options.js';

/**
 * Frees a node whose agent is gone for good: removes everything that an agent has left in its kernel, so that every pod is plain. `culvertctl
 * node release` runs it on the node; `npm run clean` on this machine.
 */
await runCommand(
  {
    options: {
      bpffs: agentOptions.bpffs,
      cniBinDir: option.text({
        help: 'Where the container runtime has its CNI plugins.',
        fallback: '/opt/cni/bin',
        metavar: 'DIR',
      }),
      cniConfDir: option.text({
        help: agentOptions.cniConfDir.help,
        fallback: '/etc/cni/net.d',
        metavar: 'DIR',
      }),
      force: option.flag({ help: 'Also under a live agent: its pods are plain until it starts anew.' }),
    },
    usage: 'node dist/agent/clean.js [options, as given to the agent]',
    envPrefix: 'CULVERT_',
    failure: 'nothing more was cleaned',
  },
  ({ bpffs, force, cniBinDir: binDir, cniConfDir: confDir }) => {
    const links = clean({ bpffsDir: bpffs, force });
    const detached = links === 0 ? 'nothing was attached' : `${links} programs detached`;
    // Only then: where an agent lives, this is not reached. Without it no pod would start any more.
    if (uninstallPlugin({ binDir, confDir }) > 0)
      process.stdout.write(`${confDir}: the CNI plugin is taken out\n`);
    process.stdout.write(`${bpffs}: ${detached}; no pins left\n`);
    return 0;
  },
);
