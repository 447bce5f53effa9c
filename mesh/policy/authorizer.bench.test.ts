import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

test('the bench runs and prints its rows', () => {
  const path = fileURLToPath(new URL('./authorizer.bench.js', import.meta.url));
  const lines = execFileSync(process.execPath, [path, '0.02'], { encoding: 'utf8' }).trim().split('\n');
  expect(lines).toHaveLength(14);
  for (const line of lines)
    expect(line).toMatch(
      /^\d+ policies of 5 rules, .*: [\d.]+ us, after a change at most [\d.]+ ms at a time$/,
    );
});
