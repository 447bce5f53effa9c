import { runDaemon } from '../mesh/config/index.js';
import { createLog } from '../mesh/log/index.js';
import { agentOptions, checkOptions } from './options.js';
import { Agent } from './wire.js';

await runDaemon(
  {
    options: agentOptions,
    usage: 'node dist/agent/main.js [options]',
    envPrefix: 'CULVERT_',
    validate: checkOptions,
    failure: 'agent cannot run',
  },
  (options) => {
    const log = createLog({ level: options.logLevel, component: 'agent' });
    const onSucceeded = () => {
      log.info({}, 'the next agent of this node has taken over, and the last connection has ended');
      if (options.afterTakeover === 'exit') process.exit(0);
      // Nothing else keeps the process.
      setInterval(() => undefined, 1 << 30);
    };
    const agent = new Agent(options, { log, onSucceeded, onWithdrawn: () => process.exit(0) });
    return { start: () => agent.start(), stop: () => agent.stop(), log };
  },
);
