import { runCommand } from '../mesh/config/index.js';
import { CHECK_DEFAULTS, checkInstallation } from './installation/index.js';
import { checkInstallationOptions, openInstallation } from './installation-options.js';

/** `helm test`. */
await runCommand(
  {
    options: checkInstallationOptions,
    usage: 'node dist/control/check-installation.js [options]',
    envPrefix: 'CULVERT_CHECK_',
    failure: 'the mesh is not at work',
  },
  async (options) => {
    await checkInstallation({ ...CHECK_DEFAULTS, ...options }, openInstallation(options));
    return 0;
  },
);
