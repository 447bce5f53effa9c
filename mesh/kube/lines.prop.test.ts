import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { KubeError } from './errors.js';
import { LineSplitter } from './lines.js';

const SEED = { seed: 20261122, numRuns: 300 };

test('however a stream is cut, its lines are the same; what has not ended is none', () => {
  const text = fc.array(
    fc.string({ unit: 'grapheme' }).map((line) => line.replaceAll('\n', ' ')),
    { maxLength: 20 },
  );
  fc.assert(
    fc.property(text, fc.array(fc.nat(40), { maxLength: 60 }), (lines, cuts) => {
      const bytes = Buffer.from([...lines, 'no end'].join('\n'));
      const seen: string[] = [];
      const splitter = new LineSplitter({ maxLineBytes: 1 << 20 }, (line) => seen.push(line));
      let start = 0;
      for (const length of [...cuts, bytes.length]) {
        splitter.push(bytes.subarray(start, start + length));
        start = Math.min(bytes.length, start + length);
      }
      expect(seen).toEqual(lines.filter((line) => line.trim() !== ''));
    }),
    SEED,
  );
});

test('a line that never ends is an error', () => {
  const splitter = new LineSplitter({ maxLineBytes: 1000 }, () => {});
  for (let i = 0; i < 10; i++) splitter.push(Buffer.alloc(100, 'x'));
  expect(() => splitter.push(Buffer.from('x'))).toThrow(KubeError);
});
