import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { packageRoot } from '../native/package-root.js';

/** What .ci/setup itself calls before it installs anything. */
const TOOLS = [
  'bash',
  'cat',
  'dirname',
  'flock',
  'grep',
  'head',
  'id',
  'mktemp',
  'node',
  'rm',
  'tail',
  'uname',
];

describe('.ci/setup says what is missing', () => {
  let bin: string;

  beforeEach(() => {
    bin = mkdtempSync(join(tmpdir(), 'culvert-setup-test-'));
    for (const tool of TOOLS) {
      const path = ['/usr/bin', '/bin'].map((folder) => join(folder, tool)).find(existsSync);
      symlinkSync(tool === 'node' ? process.execPath : path!, join(bin, tool));
    }
  });

  afterEach(() => rmSync(bin, { recursive: true }));

  function pretend(tool: string, script: string): void {
    rmSync(join(bin, tool), { force: true });
    writeFileSync(join(bin, tool), `#!/bin/bash\n${script}\n`);
    chmodSync(join(bin, tool), 0o755);
  }

  function setUp(purpose: string): { status: number | null; stderr: string } {
    const script = join(packageRoot(), '.ci/setup');
    return spawnSync(join(bin, 'bash'), [script, purpose], {
      env: { PATH: bin },
      encoding: 'utf8',
      timeout: 60_000,
    });
  }

  test('an old Node', () => {
    pretend('node', 'echo v18.0.0; [ "$1" = --version ]');
    expect(setUp('lint')).toMatchObject({
      status: 1,
      stderr: 'set-up: Node.js 20.19 or newer is needed, this is v18.0.0\n',
    });
  });

  test('no Node', () => {
    rmSync(join(bin, 'node'));
    expect(setUp('lint').stderr).toBe('set-up: node is missing: install Node.js 20.19 or newer\n');
  });

  test('no root', () => {
    pretend('id', 'echo 1000');
    expect(setUp('demo').stderr).toBe(
      'set-up: root is needed: demo makes network namespaces and cgroups and loads BPF programs\n',
    );
  });

  test('not a Debian', () => {
    expect(setUp('build')).toMatchObject({ status: 1 });
    expect(setUp('build').stderr).toMatch(/^set-up: this is neither Debian nor Ubuntu .*clang/);
  });

  test('no apt, and which packages are missing', () => {
    pretend('dpkg-query', '[ "$4" = clang ] || printf installed');
    expect(setUp('build').stderr).toBe('set-up: no apt-get here; missing packages: clang\n');
  });

  test('packages to install, but no root', () => {
    pretend('dpkg-query', '[ "$4" = clang ] || printf installed');
    pretend('apt-get', 'exit 0');
    pretend('id', 'echo 1000');
    expect(setUp('build').stderr).toBe(
      'set-up: root is needed to install the missing packages: apt-get install clang\n',
    );
  });

  test('an unknown purpose', () => {
    expect(setUp('party').stderr).toMatch(/^set-up: unknown purpose party/);
  });
});
