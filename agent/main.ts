import { messageOf } from '../mesh/common/errors.js';
import { ConfigError, helpOf, parseOptions } from '../mesh/config/index.js';
import { createLog } from '../mesh/log/index.js';
import { agentOptions } from './options.js';
import { Agent } from './wire.js';

const envPrefix = 'CULVERT_';

/** Runs until SIGTERM or SIGINT. Exit codes: 0 stopped, 1 failed, 2 options. */
async function main(): Promise<void> {
  const argv = process.argv.slice(2);
  if (argv.includes('--help')) {
    process.stdout.write(helpOf(agentOptions, 'node dist/agent/main.js [options]', envPrefix));
    return;
  }
  const options = parseOptions(agentOptions, { argv, env: process.env, envPrefix });
  const log = createLog({ level: options.logLevel, component: 'agent' });
  const onSucceeded = () => {
    log.info({}, 'the next agent of this node has taken over, and the last connection has ended');
    process.exit(0);
  };
  const agent = new Agent(options, { log, onSucceeded });
  const stop = (signal: string) => {
    log.info({ signal }, 'stopping');
    agent.stop().then(
      () => process.exit(0),
      (error) => {
        log.error({ err: error }, 'stopping failed');
        process.exit(1);
      },
    );
  };
  process.once('SIGTERM', stop).once('SIGINT', stop);
  await agent.start();
}

main().catch((error: unknown) => {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exit(error instanceof ConfigError ? 2 : 1);
});
