import { expect, test } from '@jest/globals';
import { SHORT_SCALE } from './population.js';
import { formatTable } from './report.js';
import { ScaleRun } from './scale.js';

// `npm run scale` in short: no time is held against a limit, as the machine may be busy.

const LIMIT_MB = 400;

test('50 agents and 500 pods of a real API server: everybody gets to hold exactly what there is, in whatever way it came', async () => {
  const run = new ScaleRun({ ...SHORT_SCALE, fleets: 2, nodeFlags: [] }, () => {});
  const { rows, faults } = await run.run();
  process.stdout.write(`${formatTable('Scale, in short', rows)}\n`);
  expect(faults).toEqual([]);
  const memory = rows.filter(({ unit }) => unit === 'MB');
  expect(memory.length).toBeGreaterThan(5);
  expect(memory.filter(({ value }) => value > LIMIT_MB)).toEqual([]);
}, 600_000);
