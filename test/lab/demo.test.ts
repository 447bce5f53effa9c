import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';

test('npm run demo ends well and shows identities, counters and an encrypted wire', async () => {
  const program = join(packageRoot(), 'dist/test/lab/demo.js');
  const { stdout } = await promisify(execFile)(process.execPath, [program], { timeout: 120_000 });
  expect(stdout).not.toContain('✗');
  expect(stdout).toContain('cart → ledger: 5 connections from spiffe://cluster.local/ns/shop/sa/cart');
  expect(stdout).toContain('visitor → frontend: 1 connection from no identity');
  expect(stdout).toContain('is nowhere in it');
  expect(stdout).toContain('All of it was true.');
}, 150_000);
