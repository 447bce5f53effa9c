/** `npm run clean`: removes everything that an agent has left in the kernel of this machine. */
import { messageOf } from '../mesh/common/errors.js';
import { helpOf, parseOptions } from '../mesh/config/index.js';
import { clean } from './capture/index.js';
import { agentOptions } from './options.js';

const table = { bpffs: agentOptions.bpffs };
const envPrefix = 'CULVERT_';

function main(): void {
  const argv = process.argv.slice(2);
  if (argv.includes('--help')) {
    process.stdout.write(
      helpOf(table, 'node dist/agent/clean.js [options, as given to the agent]', envPrefix),
    );
    return;
  }
  const { bpffs } = parseOptions(table, { argv, env: process.env, envPrefix });
  const links = clean({ bpffsDir: bpffs });
  const detached = links === 0 ? 'nothing was attached' : `${links} programs detached`;
  process.stdout.write(`${bpffs}: ${detached}; no pins left\n`);
}

try {
  main();
} catch (error) {
  process.stderr.write(`nothing more was cleaned: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
