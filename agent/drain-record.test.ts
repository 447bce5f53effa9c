import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { createLog } from '../mesh/log/index.js';
import { DrainRecord } from './drain-record.js';

test('what agents drained adds up for those that follow; a line that is none counts for nothing', () => {
  const runDir = mkdtempSync(join(tmpdir(), 'culvert-drained-'));
  const log = createLog({ level: 'error', component: 'test' });
  const recordOf = (ended: number, reset: number) =>
    new DrainRecord({ runDir }, { own: () => ({ ended, reset }), log });
  try {
    const first = recordOf(3, 1);
    expect(first.total).toEqual({ ended: 3, reset: 1 });
    first.write();
    expect(first.total).toEqual({ ended: 3, reset: 1 });
    recordOf(0, 0).write();
    appendFileSync(join(runDir, 'drained'), 'half a li\n');
    expect(recordOf(2, 5).total).toEqual({ ended: 5, reset: 6 });
  } finally {
    rmSync(runDir, { recursive: true });
  }
});
