import { expect, test } from '@jest/globals';
import { formatPodStart, measurePodStart } from './pod-start.js';

test('how long pods wait at their start is measured', async () => {
  const result = await measurePodStart({ pods: 3, rounds: 1, goesFirst: false });
  expect(result.p50).toBeLessThanOrEqual(result.max);
  expect(result.max).toBeLessThan(10_000); // a pod that is never captured takes 30 s
  expect(formatPodStart(result)).toContain('3 pods at once');
  expect(result.cpu.main).toBeGreaterThan(0);
}, 120_000);
