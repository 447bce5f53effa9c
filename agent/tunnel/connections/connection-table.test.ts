import { describe, expect, test } from '@jest/globals';
import type { ConnectionSummary } from '../messages.js';
import { ConnectionTable, type TrackedConnection } from './connection-table.js';

const quietMs = 1_000;

/** A clock that a test turns on, and its timers. */
class Clock {
  nowMs = 0;
  readonly #timers = new Set<{ readonly dueMs: number; readonly callback: () => void }>();

  setTimer(delayMs: number, callback: () => void) {
    const timer = { dueMs: this.nowMs + delayMs, callback };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  get timers(): number {
    return this.#timers.size;
  }

  /** `onTick` first, every 100 ms. */
  pass(ms: number, onTick: () => void = () => {}): void {
    for (const untilMs = this.nowMs + ms; this.nowMs < untilMs; ) {
      this.nowMs += 100;
      onTick();
      for (const timer of [...this.#timers].sort((a, b) => a.dueMs - b.dueMs)) {
        if (timer.dueMs > this.nowMs || !this.#timers.delete(timer)) continue;
        timer.callback();
      }
    }
  }
}

class Tracked implements TrackedConnection {
  readonly podUid = 'u';
  movedBytes = 0;
  outcome = '';
  readonly #table: ConnectionTable;

  constructor(table: ConnectionTable) {
    this.#table = table;
    table.add(this);
  }

  summary(): ConnectionSummary {
    throw new Error('nobody asks');
  }

  /** The other side has not ended yet. */
  end(reason: string): boolean {
    this.outcome = `fin: ${reason}`;
    return true;
  }

  abort(cause: string): void {
    this.outcome = `reset: ${cause}`;
    this.#table.remove(this);
  }
}

function makeBed() {
  const clock = new Clock();
  const table = new ConnectionTable({ quietMs }, { reactor: clock });
  return { clock, table };
}

describe('a connection that is as old as it may be', () => {
  test('is reset ten seconds later if it is never quiet', () => {
    const { clock, table } = makeBed();
    const busy = new Tracked(table);
    table.endAtAge(busy, 60_000);
    const work = () => void busy.movedBytes++;
    clock.pass(69_900, work);
    expect(busy.outcome).toBe('');
    clock.pass(100, work);
    expect(busy.outcome).toBe('reset: too old, and not quiet');
    clock.pass(quietMs);
    expect([table.size, clock.timers]).toEqual([0, 0]);
  });

  test('is ended when it is quiet, and reset if the other side does not end either', () => {
    const { clock, table } = makeBed();
    const connection = new Tracked(table);
    table.endAtAge(connection, 60_000);
    clock.pass(60_000);
    expect(connection.outcome).toBe('');
    clock.pass(1_000);
    expect(connection.outcome).toBe('fin: too old, connection was quiet');
    clock.pass(9_000);
    expect(connection.outcome).toBe('reset: too old, and did not end when we had');
  });

  test('is forgotten, with its timers, when it ends by itself', () => {
    const { clock, table } = makeBed();
    const [young, old] = [new Tracked(table), new Tracked(table)];
    for (const connection of [young, old]) table.endAtAge(connection, 60_000);
    clock.pass(1_000);
    table.remove(young);
    clock.pass(60_000, () => void old.movedBytes++);
    table.remove(old);
    clock.pass(20_000);
    expect([young.outcome, old.outcome, clock.timers]).toEqual(['', '', 0]);
  });
});

test('quiet is a whole second without a byte, whenever it is asked for', () => {
  const { clock, table } = makeBed();
  const [first, second] = [new Tracked(table), new Tracked(table)];
  table.endWhenQuiet(first, 'a');
  clock.pass(900);
  second.movedBytes = 10;
  table.endWhenQuiet(second, 'b');
  clock.pass(100);
  expect([first.outcome, second.outcome]).toEqual(['fin: a', '']);
  clock.pass(1_000);
  expect(second.outcome).toBe('fin: b');
});

test('one whose other side is not reached yet, or that cannot end now, is asked again', () => {
  const { clock, table } = makeBed();
  const connection = new Tracked(table);
  connection.movedBytes = -1;
  let ended = 0;
  table.endAllWhenQuiet('stop', () => ended++);
  clock.pass(5_000);
  expect(connection.outcome).toBe('');
  connection.movedBytes = 0;
  const end = connection.end.bind(connection);
  connection.end = () => false;
  clock.pass(5_000);
  connection.end = end;
  clock.pass(1_000);
  expect([connection.outcome, ended]).toEqual(['fin: stop', 1]);
});
