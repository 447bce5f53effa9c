import { expect, test } from '@jest/globals';
import { workloadWith } from '../store/fixtures.js';
import type { Workload } from '../store/index.js';
import { ConnectionTelemetry } from './connections.js';
import type { ConnectionInfo } from './types.js';

/** Levels of the lines of connections that end well, fail and are refused. */
function levels(accessLog: Workload['accessLog'], reporter: ConnectionInfo['reporter'] = 'source'): string[] {
  const worker = new ConnectionTelemetry({ accessLog: 'text' }, { nowMs: () => 0, wallClockMs: () => 0 });
  const workload = workloadWith({ uid: 'u', ...(accessLog && { accessLog }) });
  const info: ConnectionInfo = {
    reporter,
    source: { workload, baggage: null, identity: null },
    destination: { workload: null, baggage: null, identity: null },
    service: null,
    mutualTls: true,
    sourceAddress: { address: '10.0.0.1', port: 40_000 },
    destinationAddress: { address: '10.0.0.2', port: 15008 },
    hboneAddress: null,
  };
  worker.logOpened = true;
  worker.opened(info).closed(null);
  worker.opened(info).closed({ flag: 'CONNECT', message: 'reset' });
  worker.refused(info, { flag: 'DENY', message: 'no' });
  const { lines } = worker.takeBatch()!;
  return [...lines.matchAll(/\t(\w+)\taccess/g)].map(([, level]) => level!);
}

test('lines are written as the workload on our side has it: level, a sample of what ended well, or none', () => {
  const all = { disabled: false, samplingPerMille: 1000, level: 'debug' } as const;
  const every = ['debug', 'info', 'debug', 'error', 'warn'];
  expect(levels(undefined)).toEqual(every);
  expect(levels(all)).toEqual(every);
  expect(levels({ ...all, level: 'info' })).toEqual(['info', 'error', 'warn']);
  expect(levels({ ...all, level: 'error' })).toEqual(['error']);
  expect(levels({ ...all, samplingPerMille: 0 })).toEqual(['error', 'warn']);
  expect(levels({ ...all, disabled: true })).toEqual([]);
  expect(levels({ ...all, disabled: true }, 'destination')).toEqual(every);
});
