/**
 * `npm run clean`: removes everything that an agent has left in the kernel of this machine. Options: `--bpffs DIR` (or CULVERT_BPFFS),
 * as given to the agent.
 */
import { messageOf } from '../mesh/common/errors.js';
import { captureDefaults, clean } from './capture/index.js';

const flag = process.argv.indexOf('--bpffs');
const bpffsDir =
  (flag < 0 ? process.env['CULVERT_BPFFS'] : process.argv[flag + 1]) ?? captureDefaults.bpffsDir;
try {
  const links = clean({ bpffsDir });
  process.stdout.write(
    `${bpffsDir}: ${links === 0 ? 'nothing was attached' : `${links} programs detached`}; no pins left\n`,
  );
} catch (error) {
  process.stderr.write(`${bpffsDir} could not be cleaned: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
