import { runCommand } from '../mesh/config/index.js';
import { beginRootRotation } from './ca/index.js';
import { ENV_PREFIX, OPTIONS } from './options.js';

/** Makes the next root in the state folder; the controller, running or started later, goes over to it in three steps (docs/operations.md). */
await runCommand(
  {
    options: { state: OPTIONS.state, trustDomain: OPTIONS.trustDomain },
    usage: 'node dist/control/rotate-root.js --state DIR',
    envPrefix: ENV_PREFIX,
    failure: 'no rotation was begun',
  },
  ({ state, trustDomain }) => {
    const isNew = beginRootRotation(state, trustDomain);
    process.stdout.write(
      isNew ? 'the next root is made; the controller announces it\n' : 'a rotation is under way already\n',
    );
    return 0;
  },
);
