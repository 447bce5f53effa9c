import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { packageRoot } from '../native/package-root.js';

interface LockedPackage {
  readonly version: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

// npm drops from the lock file what a registry mirror does not serve (binaries of other platforms), and `npm ci` then refuses the file everywhere.
test('the lock file has an entry for every optional dependency', () => {
  const text = readFileSync(join(packageRoot(), 'package-lock.json'), 'utf8');
  const packages = (JSON.parse(text) as { packages: Record<string, LockedPackage> }).packages;
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) => !(`node_modules/${name}` in packages || `${path}/node_modules/${name}` in packages),
    ),
  );
  expect(missing).toEqual([]);
});
