import { runCommand } from '../mesh/config/index.js';
import { UNINSTALL_DEFAULTS, uninstall } from './installation/index.js';
import { openInstallation, uninstallOptions } from './installation-options.js';

/** The chart's hook before a removal. */
await runCommand(
  {
    options: uninstallOptions,
    usage: 'node dist/control/uninstall.js [options]',
    envPrefix: 'CULVERT_UNINSTALL_',
    failure: 'not uninstalled',
  },
  async ({ agentsTimeout: agentsTimeoutMs, ...options }) => {
    const isWhole = await uninstall(
      { ...UNINSTALL_DEFAULTS, ...options, agentsTimeoutMs },
      openInstallation(options),
    );
    // All the same a success: a hook that fails would keep the rest of the mesh in the cluster.
    if (!isWhole) process.stdout.write('the mesh is not wholly removed: see above\n');
    return 0;
  },
);
