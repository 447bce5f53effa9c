import { expect, test } from '@jest/globals';
import { workloadWith } from '../store/fixtures.js';
import { CellTable } from './cell-table.js';
import type { ConnectionInfo } from './types.js';

const MINUTE_MS = 60_000;

/** From a workload that is another object each time, as after an update. */
function infoOfUpdate(): ConnectionInfo {
  const nobody = { workload: null, baggage: null, identity: null };
  return {
    reporter: 'source',
    source: { ...nobody, workload: workloadWith({ uid: 'c1//Pod/shop/web-1', workloadName: 'web' }) },
    destination: nobody,
    service: null,
    mutualTls: false,
    sourceAddress: { address: '10.0.0.1', port: 40_000 },
    destinationAddress: { address: '10.0.0.2', port: 80 },
    hboneAddress: null,
  };
}

test('workloads that were replaced are not held for longer than some minutes', () => {
  const cells = new CellTable({});
  cells.takeDeltas(0);
  const updates = Array.from({ length: 100 }, () => cells.cellOf(infoOfUpdate(), '-'));
  expect(new Set(updates).size).toBe(1);
  cells.takeDeltas(4 * MINUTE_MS);
  expect(cells.resolutions).toBe(100);
  cells.takeDeltas(5 * MINUTE_MS);
  expect(cells.resolutions).toBe(0);
  expect(cells.cellOf(infoOfUpdate(), '-')).toBe(updates[0]);
});
