import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { TimerWheel } from './timer-wheel.js';

describe('TimerWheel', () => {
  test('runs a timer once, not before its time, and not when it was cancelled', () => {
    const wheel = new TimerWheel(1000);
    const ran: string[] = [];
    wheel.set(1000, 20, () => ran.push('a'));
    const cancelled = wheel.set(1000, 20, () => ran.push('b'));
    wheel.set(1000, 10_000, () => ran.push('far'));
    cancelled.cancel();
    cancelled.cancel();
    const expire = (nowMs: number) => wheel.expire(nowMs, (callback) => callback());
    expire(1019);
    expect(ran).toEqual([]);
    expire(1024);
    expect(ran).toEqual(['a']);
    expect(wheel.msUntilNext(1024)).toBe(9976);
    expire(5200);
    expire(11_000);
    expect(ran).toEqual(['a', 'far']);
    expect(wheel.size).toBe(0);
    expect(wheel.msUntilNext(11_000)).toBe(Number.POSITIVE_INFINITY);
  });

  test('a callback may cancel another that is due, and set new ones', () => {
    const wheel = new TimerWheel(0);
    const ran: string[] = [];
    const timers = [
      wheel.set(0, 8, () => timers[1]!.cancel()),
      wheel.set(0, 12, () => ran.push('never')),
      wheel.set(0, 16, () => wheel.set(16, 0, () => ran.push('later'))),
    ];
    wheel.expire(16, (callback) => callback());
    expect(ran).toEqual([]);
    wheel.expire(24, (callback) => callback());
    expect(ran).toEqual(['later']);
    expect(wheel.size).toBe(0);
  });

  test('behaves as a sorted list does', () => {
    const operation = fc.oneof(
      fc.record({ kind: fc.constant('set' as const), ms: fc.integer({ min: 0, max: 20_000 }) }),
      fc.record({ kind: fc.constant('cancel' as const), ms: fc.nat(50) }),
      fc.record({ kind: fc.constant('advance' as const), ms: fc.integer({ min: 0, max: 9000 }) }),
    );
    const property = fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      let nowMs = 777;
      const wheel = new TimerWheel(nowMs);
      const model: { id: number; dueMs: number; cancel: () => void }[] = [];
      const ran: number[] = [];
      for (const [id, { kind, ms }] of operations.entries()) {
        if (kind === 'set') {
          const timer = wheel.set(nowMs, ms, () => ran.push(id));
          model.push({ id, dueMs: nowMs + ms, cancel: () => timer.cancel() });
        } else if (kind === 'cancel' && model.length > 0) {
          model.splice(ms % model.length, 1)[0]!.cancel();
        } else if (kind === 'advance') {
          nowMs += ms;
          wheel.expire(nowMs, (callback) => callback());
          for (const id of ran.splice(0)) {
            const at = model.findIndex((timer) => timer.id === id);
            expect(model[at]!.dueMs).toBeLessThanOrEqual(nowMs);
            model.splice(at, 1);
          }
          // A tick late at the most.
          for (const timer of model) expect(timer.dueMs).toBeGreaterThan(nowMs - 8);
        }
        expect(wheel.size).toBe(model.length);
        const next = Math.min(...model.map((timer) => timer.dueMs));
        expect(wheel.msUntilNext(nowMs)).toBeLessThanOrEqual(Math.max(0, next - nowMs) + 8);
      }
    });
    fc.assert(property, { seed: 7, numRuns: 300 });
  });
});
