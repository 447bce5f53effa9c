import { runCommand } from '../mesh/config/index.js';
import { INSTALL_DEFAULTS, installCrds, loadCrds, removeMarker } from './installation/index.js';
import { installOptions, openInstallation } from './installation-options.js';

/** The chart's hook before an installation or upgrade. */
await runCommand(
  {
    options: installOptions,
    usage: 'node dist/control/install.js [options]',
    envPrefix: 'CULVERT_INSTALL_',
    failure: 'not prepared for installation',
  },
  async (options) => {
    const deps = openInstallation(options);
    await removeMarker(options.namespace, deps);
    if (!options.skipCrds) await installCrds(loadCrds(), INSTALL_DEFAULTS, deps);
    return 0;
  },
);
