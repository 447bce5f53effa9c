import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { tryParseAddress } from '../../mesh/common/address.js';
import { VipPool } from './vip-pool.js';

type Step = { readonly take: boolean; readonly name: string };

const steps = fc.array(
  fc.record({
    take: fc.boolean(),
    name: fc.integer({ min: 0, max: 400 }).map((n) => `shop/h${n}.example.org`),
  }),
  { maxLength: 300 },
);

function run(pool: VipPool, all: readonly Step[], seen: Map<string, string>): void {
  const inUse = new Map<string, string>();
  for (const { take, name } of all) {
    if (!take) {
      pool.release(name);
      inUse.delete(name);
      continue;
    }
    const vip = pool.take(name)!;
    expect(seen.get(name) ?? vip.ipv4).toBe(vip.ipv4);
    seen.set(name, vip.ipv4);
    inUse.set(name, vip.ipv4);
    expect(new Set(inUse.values()).size).toBe(inUse.size);
  }
}

describe('automatic addresses', () => {
  test('a name keeps its own, whatever comes and goes beside it, also over restarts', () => {
    fc.assert(
      fc.property(steps, steps, (before, after) => {
        const seen = new Map<string, string>();
        const pool = new VipPool();
        run(pool, before, seen);
        run(new VipPool([...pool.saved]), after, seen);
      }),
      { seed: 7, numRuns: 200 },
    );
  });

  test('no two names share one though their hashes do; all are of the ranges', () => {
    const pool = new VipPool();
    const all = Array.from({ length: 5000 }, (_, i) => pool.take(`shop/h${i}`)!);
    expect(new Set(all.map(({ ipv4 }) => ipv4)).size).toBe(5000);
    expect(new Set(all.map(({ ipv6 }) => ipv6)).size).toBe(5000);
    for (const { ipv4, ipv6 } of all) {
      expect([...tryParseAddress(ipv4)!.subarray(0, 2)]).toEqual([240, 240]);
      expect([0, 255]).not.toContain(tryParseAddress(ipv4)![3]);
      expect(Buffer.from(tryParseAddress(ipv6)!.subarray(0, 6)).toString('hex')).toBe('200100020000');
    }
  });

  test('a lost file changes little: a name starts at its hash', () => {
    const names = Array.from({ length: 500 }, (_, i) => `shop/h${i}`);
    const first = new VipPool();
    const second = new VipPool();
    const before = names.map((name) => first.take(name)!.ipv4);
    const after = names.toReversed().map((name) => second.take(name)!.ipv4);
    expect(after.toReversed().filter((vip, i) => vip !== before[i]).length).toBeLessThan(15);
  });

  test('when all are taken, those of names that are gone are given anew, the longest gone first; then there are none', () => {
    const pool = new VipPool();
    const names = Array.from({ length: 256 * 254 }, (_, i) => `n/${i}`);
    expect(names.filter((name) => pool.take(name) === null)).toEqual([]);
    expect(pool.take('one/more')).toBeNull();
    const [first, second] = [pool.take('n/5'), pool.take('n/6')];
    pool.release('n/5');
    pool.release('n/6');
    expect(pool.take('one/more')).toEqual(first);
    expect(pool.take('n/6')).toEqual(second);
    expect(pool.take('n/5')).toBeNull();
  });

  test('what is saved twice, or is no slot, is dropped', () => {
    const pool = new VipPool([
      ['a', 3],
      ['b', 3],
      ['c', -1],
      ['d', 1e9],
    ]);
    expect([...pool.saved]).toEqual([['a', 3]]);
    expect(pool.take('a')).toEqual({ ipv4: '240.240.0.4', ipv6: '2001:2::4' });
  });
});
