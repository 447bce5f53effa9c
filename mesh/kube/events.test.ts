import { describe, expect, test } from '@jest/globals';
import { refusal } from './events.js';

describe('a refusal', () => {
  test.each([
    [3, 3000],
    [0, 0],
    [-1, 0],
    [Number.NaN, 0],
    ['soon', 0],
    [1e9, 120_000],
  ])('that says to come back after %s s: a wait of %s ms', (retryAfterSeconds, retryAfterMs) => {
    const { data } = refusal({ details: { retryAfterSeconds } }, 429, {});
    expect(data).toMatchObject({ status: 429, retryAfterMs });
  });
});
