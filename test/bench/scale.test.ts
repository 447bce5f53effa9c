import { expect, test } from '@jest/globals';
import { formatScale, fullScale, measureScale } from './scale.js';

test('10,000 workloads, 2,000 services, 500 policies: within bounds that hold on a busy machine', async () => {
  const figures = await measureScale();
  process.stdout.write(`${formatScale(figures, fullScale)}\n`);
  expect(figures.snapshotMs).toBeLessThan(10_000);
  expect(figures.longestTurnMs).toBeLessThan(50);
  expect(figures.updateMs).toBeLessThan(1_000);
  expect(figures.routeUs + figures.authorizeUs).toBeLessThan(50);
  expect(figures.rssMb).toBeLessThan(250);
}, 90_000);
