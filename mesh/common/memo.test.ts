import { expect, test } from '@jest/globals';
import { Memo } from './memo.js';

test('makes once, and starts anew when full', () => {
  let made = 0;
  const memo = new Memo((text) => `${text}${made++}`, 2);
  expect([memo.of('a'), memo.of('a'), memo.of('b'), memo.of('a')]).toEqual(['a0', 'a0', 'b1', 'a0']);
  expect([memo.of('c'), memo.of('a')]).toEqual(['c2', 'a3']);
  expect(memo.size).toBe(2);
});

test('long texts are not remembered', () => {
  const memo = new Memo((text) => text.length);
  for (let i = 0; i < 100; i++) expect(memo.of(`${i}`.padEnd(60_000))).toBe(60_000);
  expect(memo.size).toBe(0);
});
