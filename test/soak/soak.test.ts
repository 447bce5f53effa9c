import { expect, test } from '@jest/globals';
import { Soak } from './soak.js';

test('a short soak: every failure is explained, nothing grows', async () => {
  const result = await Soak.run({ minutes: 0.7, seed: 7 }, () => {});
  expect(result.unexplained).toEqual([]);
  expect(result.grown).toEqual([]);
  for (const kind of ['short', 'chat', 'upload', 'download', 'reset-by-server', 'reset-by-client', 'stalled'])
    expect(result.connections[kind]).toBeGreaterThan(10);
}, 180_000);
