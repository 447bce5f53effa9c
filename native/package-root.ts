import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Directory that holds package.json, from the sources as from dist/. Throws where the tree was taken apart. */
export function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json'))) {
    const parent = dirname(directory);
    if (parent === directory) throw new Error('culvert is not inside its package: no package.json found');
    directory = parent;
  }
  return directory;
}
