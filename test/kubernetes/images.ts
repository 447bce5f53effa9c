import { dirname, join } from 'node:path';
import { packageRoot } from '../../native/package-root.js';
import type { ImageTable } from './kubelet/types.js';

/** Images that lab nodes know, by repository: there is no registry, programs of this machine and of this tree stand for them. */
export function defaultImages(): ImageTable {
  const node = (program: string, ...args: string[]): { entrypoint: string[]; args: string[] } => ({
    entrypoint: [process.execPath, join(packageRoot(), 'dist', program)],
    args,
  });
  const shell = { entrypoint: [], args: ['sh'] };
  return {
    pause: { entrypoint: ['sleep'], args: ['infinity'] },
    busybox: shell,
    alpine: shell,
    debian: { entrypoint: [], args: ['bash'] },
    node: { entrypoint: [], args: [process.execPath] },
    'curlimages/curl': { entrypoint: ['curl'] },
    'culvert-test/http-echo': node('test/support/http-echo.js', '8080'),
    'culvert-test/tcp-app': node('test/support/tcp-app.js'),
    'culvert/agent': node('agent/main.js'),
    'culvert/controller': node('control/main.js'),
    /** One image for all programs, as the Dockerfile makes it: the command says which, `node dist/agent/main.js`. */
    culvert: {
      entrypoint: ['node'],
      workingDir: packageRoot(),
      env: {
        PATH: `${dirname(process.execPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
      },
    },
  };
}
