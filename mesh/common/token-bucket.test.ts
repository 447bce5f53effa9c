import { expect, test } from '@jest/globals';
import { TokenBucket } from './token-bucket.js';

test('a rate with a burst', () => {
  let nowMs = 0;
  const rate = new TokenBucket({ perSecond: 100, burst: 5 }, { nowMs: () => nowMs });
  const taken = () => Array.from({ length: 20 }, () => rate.tryTake()).filter(Boolean).length;
  expect(taken()).toBe(5);
  nowMs = 30;
  expect(taken()).toBe(3);
  nowMs = 10_000;
  expect(taken()).toBe(5);
});
