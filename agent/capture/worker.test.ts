import { describe, expect, test } from '@jest/globals';
import { decodeCaller } from '../../native/bpf/index.js';
import { createShownPorts } from './shown-ports.js';
import { ApplicationDialer } from './worker.js';

const handles = {
  originalDestinationsFd: -1,
  callerStorageFd: 7,
  shownPorts: createShownPorts(1_000),
  workers: 2,
};
const pod = { netnsFd: 5, netnsCookie: 1n };
const to = { address: '10.0.0.9', port: 80 };
const caller = { address: '10.0.0.1', port: 1234 };

describe('ApplicationDialer', () => {
  const dialer = new ApplicationDialer({ workerIndex: 2, handles });

  test('the dial goes to what the caller wanted, from within 127/8, and carries the caller', () => {
    const { options, shown, release } = dialer.dial(pod, to, caller, 5000);
    expect(shown).toEqual({ address: '10.0.0.1', port: 5000 });
    expect(options).toMatchObject({ to, netnsFd: 5, connectTimeoutMs: 10_000 });
    expect(options.fromAddress).toMatch(/^127\.66\.\d+\.\d+$/);
    expect(options.socketStorage!.mapFd).toBe(7);
    expect(decodeCaller(options.socketStorage!.value)).toEqual({ endpoint: shown, state: 'set' });
    release();
  });

  test('to an IPv6 destination from itself, and from ::1 what is above the budget of a destination and a minute', () => {
    let nowMs = 100_000;
    const clocked = new ApplicationDialer({ workerIndex: 2, handles }, { nowMs: () => nowMs });
    const sourceTo = (port: number): string => {
      const { options, release } = clocked.dial(
        pod,
        { address: 'fd00::9', port },
        { address: 'fd00::1', port: 1 },
        5000,
      );
      release();
      return options.fromAddress!;
    };
    for (let i = 0; i < 3000; i++) expect(sourceTo(80)).toBe('fd00::9');
    expect(sourceTo(80)).toBe('::1');
    expect(sourceTo(81)).toBe('fd00::9');
    nowMs += 60_000;
    expect(sourceTo(80)).toBe('fd00::9');
  });

  test('a port in use by a live connection of that caller is not shown again until it is over', () => {
    const first = dialer.dial(pod, to, caller, 5000);
    const second = dialer.dial(pod, to, caller, 5000);
    expect(first.shown.port).toBe(5000);
    expect(second.shown.port).not.toBe(5000);
    expect(second.shown.port).toBeGreaterThanOrEqual(32_768);
    expect(dialer.dial(pod, to, { address: '10.0.0.2', port: 1 }, 5000).shown.port).toBe(5000);
    expect(dialer.dial(pod, { ...to, port: 81 }, caller, 5000).shown.port).toBe(5000);
    expect(dialer.dial({ ...pod, netnsCookie: 2n }, to, caller, 5000).shown.port).toBe(5000);
    first.release();
    expect(dialer.dial(pod, to, caller, 5000).shown.port).toBe(5000);
    second.release();
  });

  test('no port wanted: some port; source addresses rotate', () => {
    const dials = Array.from({ length: 500 }, () => dialer.dial(pod, to, caller, 0));
    expect(new Set(dials.map(({ shown }) => shown.port)).size).toBe(500);
    expect(new Set(dials.map(({ options }) => options.fromAddress)).size).toBe(254);
    for (const { release } of dials) release();
  });

  test('every port taken is an error, not a port shown twice', () => {
    const small = new ApplicationDialer({
      workerIndex: 0,
      handles: { ...handles, shownPorts: createShownPorts(1) },
    });
    const dialMany = () => {
      for (let i = 0; i < 2_000; i++) small.dial(pod, to, caller, 0);
    };
    expect(dialMany).toThrow(expect.objectContaining({ code: 'NO_SHOWN_PORT' }));
  });
});
