import { describe, expect, test } from '@jest/globals';
import { Outliers } from './outliers.js';

const rule = { consecutiveConnectFailures: 3, baseEjectionMs: 1_000, maxEjectionPercent: 50 };

class Lab {
  nowMs = 0;
  readonly outliers: Outliers;

  constructor(maxTracked?: number) {
    const options = maxTracked === undefined ? {} : { maxTracked };
    this.outliers = new Outliers(options, { nowMs: () => this.nowMs });
  }

  fail(endpoint: string, times = 1, endpoints = 4, by = rule): void {
    for (let time = 0; time < times; time++) this.outliers.failed('shop/cart', endpoint, endpoints, by);
  }

  isOut(endpoint: string): boolean {
    return this.outliers.isOut('shop/cart', endpoint);
  }
}

describe('outliers', () => {
  test('so many failures in a row leave it out; one success breaks the row', () => {
    const lab = new Lab();
    lab.fail('a', 2);
    lab.outliers.succeeded('shop/cart', 'a');
    lab.fail('a', 2);
    expect(lab.isOut('a')).toBe(false);
    lab.fail('a');
    expect(lab.isOut('a')).toBe(true);
    expect(lab.outliers.isOut('shop/other', 'a')).toBe(false);
    expect(lab.outliers.ejections).toBe(1);
  });

  test('longer each time, 5 minutes at most, and as the first time again when it has been good for long', () => {
    const lab = new Lab();
    const outMs = (): number => {
      lab.fail('a', 3);
      const from = lab.nowMs;
      while (lab.isOut('a')) lab.nowMs += 100;
      return lab.nowMs - from;
    };
    expect([outMs(), outMs(), outMs()]).toEqual([1_000, 2_000, 3_000]);
    lab.outliers.succeeded('shop/cart', 'a');
    expect(outMs()).toBe(4_000);
    lab.nowMs += 300_000;
    lab.outliers.succeeded('shop/cart', 'a');
    expect(lab.outliers.tracked).toBe(0);
    expect(outMs()).toBe(1_000);
    const long = { ...rule, baseEjectionMs: 200_000 };
    lab.fail('b', 3, 4, long);
    lab.nowMs += 200_000;
    lab.fail('b', 3, 4, long);
    lab.nowMs += 299_000;
    expect(lab.isOut('b')).toBe(true);
    lab.nowMs += 1_001;
    expect(lab.isOut('b')).toBe(false);
  });

  test('no more than its share of the service at once, but one always may be; what must stay goes when there is room', () => {
    const lab = new Lab();
    for (const endpoint of ['a', 'b', 'c', 'd']) lab.fail(endpoint, 3);
    expect(['a', 'b', 'c', 'd'].map((one) => lab.isOut(one))).toEqual([true, true, false, false]);
    lab.nowMs = 1_001;
    lab.fail('c');
    expect(lab.isOut('c')).toBe(true);
    const alone = new Lab();
    alone.fail('a', 3, 1, { ...rule, maxEjectionPercent: 0 });
    expect(alone.isOut('a')).toBe(true);
  });

  test('0 failures is off: nothing is even remembered', () => {
    const lab = new Lab();
    lab.fail('a', 100, 4, { ...rule, consecutiveConnectFailures: 0 });
    expect([lab.isOut('a'), lab.outliers.tracked, lab.outliers.knows('shop/cart')]).toEqual([
      false,
      0,
      false,
    ]);
  });

  test('what is remembered is bounded; the oldest goes', () => {
    const lab = new Lab(100);
    for (let index = 0; index < 1_000; index++) {
      lab.fail(`e${index}`, 3, 1_000);
      lab.outliers.failed(`s${index}`, 'e', 1, rule);
    }
    expect(lab.outliers.tracked).toBe(100);
    expect(lab.isOut('e0')).toBe(false);
  });
});
