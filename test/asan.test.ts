import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { packageRoot } from '../native/index.js';

/**
 * The sanitizer tier: the engine's own tests (scenarios and random operation orders) once more, in a process where the shim is built with
 * AddressSanitizer. Leaks are not looked for: V8 and Node keep much to the end.
 */
const ROOT = packageRoot();
const TESTS = ['tcp', 'connection-ends', 'tls', 'reactor.prop', 'worker-pool'].map(
  (name) => `dist/mesh/io/${name}`,
);

function output(command: string, args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: ROOT, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed: ${stderr}`);
  return stdout.trim();
}

test('the engine under AddressSanitizer: no report', () => {
  output('make', ['-s', '-C', 'native', 'asan']);
  const sanitizer = output('gcc', ['-print-file-name=libasan.so']);
  const jest = [
    'node_modules/jest/bin/jest.js',
    '-i',
    '--selectProjects',
    'unit',
    '--',
    'dist/native/engine',
    ...TESTS,
  ];
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--experimental-vm-modules', ...jest], {
    cwd: ROOT,
    encoding: 'utf8',
    env: {
      ...process.env,
      LD_PRELOAD: sanitizer,
      ASAN_OPTIONS: 'detect_leaks=0',
      CULVERT_NATIVE_LIBRARY: join(ROOT, 'native/build/culvert-native.asan.so'),
    },
  });
  const said = `${stdout}\n${stderr}`;
  expect(said).not.toContain('AddressSanitizer');
  expect({ status, said: status === 0 ? '' : said }).toEqual({ status: 0, said: '' });
}, 240_000);
