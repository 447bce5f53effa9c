/**
 * Frees a node whose agent is gone for good: removes everything that an agent has left in its kernel, so that every pod is plain. `culvertctl
 * node release` runs it on the node; `npm run clean` on this machine.
 */
import { messageOf } from '../mesh/common/errors.js';
import { helpOf, option, parseOptions } from '../mesh/config/index.js';
import { clean } from './capture/index.js';
import { agentOptions } from './options.js';

const table = {
  bpffs: agentOptions.bpffs,
  force: option.flag({ help: 'Also under a live agent: its pods are plain until it starts anew.' }),
};
const envPrefix = 'CULVERT_';

function main(): void {
  const argv = process.argv.slice(2);
  if (argv.includes('--help')) {
    process.stdout.write(
      helpOf(table, 'node dist/agent/clean.js [options, as given to the agent]', envPrefix),
    );
    return;
  }
  const { bpffs, force } = parseOptions(table, { argv, env: process.env, envPrefix });
  const links = clean({ bpffsDir: bpffs, force });
  const detached = links === 0 ? 'nothing was attached' : `${links} programs detached`;
  process.stdout.write(`${bpffs}: ${detached}; no pins left\n`);
}

try {
  main();
} catch (error) {
  process.stderr.write(`nothing more was cleaned: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
