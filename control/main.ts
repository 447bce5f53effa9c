import { runDaemon } from '../mesh/config/index.js';
import { createLog } from '../mesh/log/index.js';
import { checkOptions, ENV_PREFIX, OPTIONS } from './options.js';
import { type Controller, startController } from './wire.js';

await runDaemon(
  {
    options: OPTIONS,
    usage: 'node dist/control/main.js (--manifests DIR | --source kubernetes) --state DIR [options]',
    envPrefix: ENV_PREFIX,
    validate: checkOptions,
    failure: 'controller cannot start',
  },
  (options) => {
    const log = createLog({ level: options.logLevel, component: 'controller' });
    let controller: Controller | null = null;
    const start = async () => {
      controller = await startController(options, { log });
    };
    return { start, stop: async () => await controller?.stop(), log };
  },
);
