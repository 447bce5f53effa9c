import { messageOf } from '../mesh/common/errors.js';
import { helpOf, parseOptions } from '../mesh/config/index.js';
import { createLog } from '../mesh/log/index.js';
import { ENV_PREFIX, OPTIONS } from './options.js';
import { startController } from './wire.js';

const USAGE = 'node dist/control/main.js --manifests DIR --state DIR [options]';

/** The controller as a process: exit code 0 after SIGTERM or SIGINT, 1 where it could not start, 2 for bad options. */
async function main(): Promise<void> {
  const argv = process.argv.slice(2);
  if (argv.includes('--help')) {
    process.stdout.write(helpOf(OPTIONS, USAGE, ENV_PREFIX));
    return;
  }
  const options = readOptions(argv);
  if (options === null) {
    process.exitCode = 2;
    return;
  }
  const log = createLog({ level: options.logLevel, component: 'controller' });
  const controller = await startController(options, { log });
  let isStopping = false;
  const stop = (signal: string) => {
    if (isStopping) return;
    isStopping = true;
    log.info({ signal }, 'stopping');
    controller.stop().then(
      () => process.exit(0),
      (error) => {
        log.error({ err: error }, 'stopping failed');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', stop).on('SIGINT', stop);
}

function readOptions(argv: readonly string[]) {
  try {
    return parseOptions(OPTIONS, { argv, env: process.env, envPrefix: ENV_PREFIX });
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n(--help lists all options)\n`);
    return null;
  }
}

main().catch((error) => {
  process.stderr.write(`controller cannot start: ${messageOf(error)}\n`);
  process.exit(1);
});
