import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

test('the bench runs and prints its rows', () => {
  const path = fileURLToPath(new URL('./session.bench.js', import.meta.url));
  const lines = execFileSync(process.execPath, [path, '0.02'], { encoding: 'utf8' }).trim().split('\n');
  expect(lines).toHaveLength(5);
  for (const line of lines.slice(0, 4))
    expect(line).toMatch(/^DATA frames of \d+ bytes: [1-9]\d* MB\/s, \d+ ns a frame$/);
  expect(lines[4]).toMatch(/^CONNECT and response: [1-9]\d* pairs\/s/);
});
