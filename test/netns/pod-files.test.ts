import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { NamespaceSockets } from '../../mesh/io/index.js';

// A pod's resolv.conf is read as the pod sees it; everything in there is the pod's, who may mean ill.

const path = 'etc/resolv.conf';
let outside: string;
let root: string;
let process: ChildProcess;
const sockets = new NamespaceSockets();
const read = (maxBytes = 100) => sockets.readFileOf(process.pid!, path, maxBytes);

beforeAll(async () => {
  outside = mkdtempSync(join(tmpdir(), 'culvert-pod-files-'));
  root = join(outside, 'root');
  mkdirSync(join(root, 'etc'), { recursive: true });
  writeFileSync(join(outside, 'secret'), 'secret');
  const program = `import os, sys, time; os.chroot(${JSON.stringify(root)}); print('in', flush=True); time.sleep(600)`;
  process = spawn('python3', ['-c', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(process.stdout!, 'data');
});
afterAll(() => {
  process?.kill('SIGKILL');
  rmSync(outside, { recursive: true, force: true });
});
beforeEach(() => {
  rmSync(join(root, 'etc'), { recursive: true, force: true });
  mkdirSync(join(root, 'etc'));
});

test('a plain file, and of a long one the start', () => {
  writeFileSync(join(root, path), 'nameserver 10.0.0.1\n');
  expect(read()).toBe('nameserver 10.0.0.1\n');
  expect(read(10)).toBe('nameserver');
});

test('links stay inside its root: absolute ones, relative ones, and those of folders', () => {
  mkdirSync(join(root, outside), { recursive: true });
  writeFileSync(join(root, outside, 'secret'), 'its own');
  symlinkSync(join(outside, 'secret'), join(root, path));
  expect(read()).toBe('its own');
  rmSync(join(root, path));
  symlinkSync('../../secret', join(root, path));
  expect(() => read()).toThrow(/ENOENT/);
  rmSync(join(root, 'etc'), { recursive: true });
  symlinkSync('../..', join(root, 'etc'));
  writeFileSync(join(outside, 'resolv.conf'), 'outside');
  expect(() => read()).toThrow(/ENOENT/);
  rmSync(join(root, 'etc'));
});

test('what is no plain file is not opened', () => {
  expect(() => read()).toThrow(/ENOENT/);
  mkdirSync(join(root, path));
  expect(() => read()).toThrow(/EINVAL/);
  rmSync(join(root, path), { recursive: true });
  execFileSync('mkfifo', [join(root, path)]);
  expect(() => read()).toThrow(/EINVAL/);
  rmSync(join(root, path));
  execFileSync('mknod', [join(root, path), 'c', '1', '5']);
  expect(() => read()).toThrow(/EINVAL/);
});

test('files that lose what is read from them are not opened', () => {
  mkdirSync(join(root, 'proc'), { recursive: true });
  execFileSync('mount', ['--bind', '/proc', join(root, 'proc')]);
  try {
    symlinkSync('/proc/kmsg', join(root, path));
    expect(() => read()).toThrow(/EINVAL/);
  } finally {
    execFileSync('umount', [join(root, 'proc')]);
  }
});

test('a process that is gone', () => {
  expect(() => sockets.readFileOf(2 ** 22 + 1, path, 100)).toThrow(/ENOENT/);
});
