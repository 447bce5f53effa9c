import { option, runCommand } from '../mesh/config/index.js';
import { CHECK_DEFAULTS, checkInstallation } from './installation/index.js';
import { installationOptions, openInstallation } from './installation-options.js';

/** `helm test`. */
await runCommand(
  {
    options: {
      ...installationOptions,
      controller: option.text({
        help: "The controller's monitoring by its Service.",
        fallback: 'http://culvert-controller.culvert-system.svc:15014',
        metavar: 'URL',
      }),
    },
    usage: 'node dist/control/check-installation.js [options]',
    envPrefix: 'CULVERT_CHECK_',
    failure: 'the mesh is not at work',
  },
  async (options) => {
    await checkInstallation({ ...CHECK_DEFAULTS, ...options }, openInstallation(options));
    return 0;
  },
);
