import { describe, expect, test } from '@jest/globals';
import { ConfigError, helpOf, meshOptions, option, parseOptions } from './index.js';

const table = {
  manifests: option.text({ help: 'Folder.', metavar: 'DIR' }),
  drainMs: option.duration({ help: 'How long.', fallback: 30_000, minMs: 0, maxMs: 3_600_000 }),
  workers: option.integer({ help: 'Threads.', fallback: 1, min: 1, max: 64 }),
  listen: option.socketAddress({ help: 'Where.', fallback: { address: '0.0.0.0', port: 15012 } }),
  logLevel: option.choice({ help: 'How loud.', fallback: 'info', of: ['info', 'debug'], env: 'LOG_LEVEL' }),
  names: option.list({ help: 'Names.', fallback: [] }),
  keep: option.flag({ help: 'Keep it.' }),
};

const parse = (argv: string[], env: Record<string, string> = {}) =>
  parseOptions(table, { argv, env, envPrefix: 'CULVERT_' });

function problemsOf(run: () => unknown): readonly string[] {
  try {
    run();
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
  }
  throw new Error('no ConfigError');
}

describe('parseOptions', () => {
  test('flag beats environment beats default; the result is frozen', () => {
    const options = parse(['--manifests', 'a', '--workers=3', '--keep', '--names', 'x, y'], {
      CULVERT_WORKERS: '2',
      CULVERT_DRAIN_MS: '5s',
      LOG_LEVEL: 'debug',
    });
    expect(options).toEqual({
      manifests: 'a',
      drainMs: 5000,
      workers: 3,
      listen: { address: '0.0.0.0', port: 15012 },
      logLevel: 'debug',
      names: ['x', 'y'],
      keep: true,
    });
    expect(Object.isFrozen(options)).toBe(true);
  });

  test('all problems are reported at once, each naming its source', () => {
    const run = () =>
      parse(['--workers', '0', '--listen', 'x', '--nope', '--drain-ms'], { LOG_LEVEL: 'loud' });
    expect(problemsOf(run)).toEqual([
      '--nope is not an option of this program',
      '--drain-ms needs a value',
      '--manifests (or CULVERT_MANIFESTS) is required: Folder.',
      "--workers: must be a whole number from 1 to 64, not '0'",
      "--listen: must be ip:port or [ipv6]:port, not 'x'",
      "LOG_LEVEL: must be one of info, debug, not 'loud'",
    ]);
  });

  test('an empty variable counts as absent, an empty flag does not', () => {
    expect(parse(['--manifests', 'a'], { CULVERT_WORKERS: '' }).workers).toBe(1);
    expect(problemsOf(() => parse(['--manifests', '']))).toEqual(['--manifests: must not be empty']);
  });

  test('rules over several options run once all are readable', () => {
    const validate = (values: { workers: number }) => (values.workers > 2 ? ['too many'] : []);
    const input = { argv: ['--manifests', 'a', '--workers', '3'], env: {}, envPrefix: '', validate };
    expect(problemsOf(() => parseOptions(table, input))).toEqual(['too many']);
  });

  test.each(['1', '1.5s', '-1s', '2h1m', '9h'])('duration %s is refused', (text) => {
    expect(problemsOf(() => parse(['--manifests', 'a', '--drain-ms', text]))[0]).toMatch(
      /^--drain-ms: must be/,
    );
  });
});

test('help names flag, argument, help, default and variable', () => {
  const help = helpOf(table, 'controller [options]', 'CULVERT_');
  expect(help).toContain('Usage: controller [options]');
  expect(help).toContain('  --manifests DIR\n      Folder. (required) [CULVERT_MANIFESTS]');
  expect(help).toContain('  --drain-ms DURATION\n      How long. (default 30s) [CULVERT_DRAIN_MS]');
  expect(help).toContain('--listen IP:PORT\n      Where. (default 0.0.0.0:15012)');
  expect(help).toContain('--keep\n      Keep it. (default false)');
});

test('what the programs of a mesh are told alike is held to its form: a trust domain written otherwise would match nobody', () => {
  const of = (...argv: string[]) => parseOptions(meshOptions, { argv, env: {}, envPrefix: 'X_' });
  expect(of('--trust-domain-aliases', 'old.example, b').trustDomainAliases).toEqual(['old.example', 'b']);
  expect(
    problemsOf(() => of('--trust-domain-aliases', 'a,Old.example', '--cluster-domain', '.local')),
  ).toEqual([
    "--trust-domain-aliases: must be lower-case letters, digits, . _ -, not 'Old.example'",
    "--cluster-domain: must be a DNS name in lower case, not '.local'",
  ]);
});
