import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { createLog } from '../mesh/log/index.js';
import { until } from '../test/support/wait.js';
import { loadVipState } from './vip-state.js';

const log = createLog({ level: 'silent', component: 'test' });
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-vips-'));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('addresses outlive the controller, whatever has come and gone since', () => {
  const first = loadVipState(folder, log);
  const given = ['a/x.org', 'a/y.org', 'b/x.org'].map((name) => first.vips.take(name));
  first.save();
  const second = loadVipState(folder, log);
  second.vips.take('a/new.org');
  second.save();
  const third = loadVipState(folder, log);
  expect(['a/x.org', 'a/y.org', 'b/x.org'].map((name) => third.vips.take(name))).toEqual(given);
});

test('nothing is written where nothing has changed', () => {
  const state = loadVipState(folder, log);
  state.vips.take('a/x.org');
  state.save();
  rmSync(join(folder, 'vips'));
  state.vips.take('a/x.org');
  state.save();
  expect(() => readFileSync(join(folder, 'vips'))).toThrow('ENOENT');
});

test('a folder that cannot be written is reported, and written once it can, by itself', async () => {
  const state = loadVipState(join(folder, 'sub'), log);
  writeFileSync(join(folder, 'sub'), '');
  const given = state.vips.take('a/x.org');
  state.save();
  rmSync(join(folder, 'sub'));
  await until(() => existsSync(join(folder, 'sub', 'vips')));
  state.close();
  expect(loadVipState(join(folder, 'sub'), log).vips.take('a/x.org')).toEqual(given);
});

test('a damaged file stops the start: addresses that clients know would change', () => {
  writeFileSync(join(folder, 'vips'), '17 a/x.org\nrubbish\n');
  expect(() => loadVipState(folder, log)).toThrow("vips:2 is not '<slot> <namespace>/<host>'");
});
