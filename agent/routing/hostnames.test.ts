import { describe, expect, test } from '@jest/globals';
import { HostLookups } from './host-lookups.js';
import { Hostnames } from './hostnames.js';

describe('hostnames of a worker', () => {
  function lab(maxNames = 3) {
    const time = { nowMs: 0 };
    const asked: string[] = [];
    const names = new Hostnames(
      { maxNames },
      { nowMs: () => time.nowMs, ask: (hostname) => asked.push(hostname) },
    );
    return { time, asked, names };
  }

  test('asked once, however many wait; known until its time is over', () => {
    const { time, asked, names } = lab();
    expect([names.addressesOf('db'), names.addressesOf('db')]).toEqual([null, null]);
    expect(asked).toEqual(['db']);
    names.answered({ hostname: 'db', addresses: ['192.0.2.1'], ttlMs: 1_000 });
    expect(names.addressesOf('db')).toEqual(['192.0.2.1']);
    time.nowMs = 1_001;
    expect(names.addressesOf('db')).toBeNull();
    expect(asked).toEqual(['db', 'db']);
  });

  test('a name that is not answered is asked again; the table is bounded', () => {
    const { time, asked, names } = lab();
    names.addressesOf('db');
    time.nowMs = 2_001;
    names.addressesOf('db');
    expect(asked).toEqual(['db', 'db']);
    for (let index = 0; index < 100; index++) names.addressesOf(`h${index}`);
    expect(names.size).toBe(3);
  });
});

describe('look-ups of main', () => {
  type Answer = readonly { address: string; ttlMs: number }[] | Error;

  function lab(options = {}) {
    const time = { nowMs: 0 };
    const asked: string[] = [];
    const waiting: ((answer: Answer) => void)[] = [];
    const lookups = new HostLookups(options, {
      nowMs: () => time.nowMs,
      lookup: (hostname) => {
        asked.push(hostname);
        return new Promise((resolve, reject) =>
          waiting.push((answer) => (answer instanceof Error ? reject(answer) : resolve(answer))),
        );
      },
    });
    return { time, asked, lookups, answer: (answer: Answer) => waiting.shift()!(answer) };
  }

  const one = (address: string, ttlMs = 60_000) => [{ address, ttlMs }];

  test('asked at the same time: one question; then the answer counts for its time, within bounds', async () => {
    const { time, asked, lookups, answer } = lab();
    const both = Promise.all([lookups.resolve('db'), lookups.resolve('db')]);
    answer([...one('192.0.2.1', 0), ...one('2001:DB8::1')]);
    const expected = { hostname: 'db', addresses: ['192.0.2.1', '2001:db8::1'], ttlMs: 5_000 };
    expect(await both).toEqual([expected, expected]);
    time.nowMs = 4_000;
    expect(await lookups.resolve('db')).toEqual({ ...expected, ttlMs: 1_000 });
    expect(asked).toEqual(['db']);
    time.nowMs = 5_000;
    const again = lookups.resolve('db');
    answer(one('192.0.2.9', 10_000_000));
    expect(await again).toMatchObject({ addresses: ['192.0.2.9'], ttlMs: 300_000 });
  });

  test('nobody answers: what was known last goes on for a while, then there is none', async () => {
    const { time, lookups, answer } = lab();
    const first = lookups.resolve('db');
    answer(one('192.0.2.1'));
    await first;
    time.nowMs = 100_000;
    const second = lookups.resolve('db');
    answer(new Error('ETIMEOUT'));
    expect(await second).toMatchObject({ addresses: ['192.0.2.1'], ttlMs: 5_000 });
    time.nowMs = 700_000;
    const third = lookups.resolve('db');
    answer(new Error('ETIMEOUT'));
    expect(await third).toMatchObject({ addresses: [], ttlMs: 5_000 });
    const fourth = lookups.resolve('never');
    answer([]);
    expect(await fourth).toMatchObject({ addresses: [] });
  });

  test('no more are under way than may be', async () => {
    const { asked, lookups } = lab({ maxInFlight: 2 });
    void lookups.resolve('a');
    void lookups.resolve('b');
    expect(await lookups.resolve('c')).toMatchObject({ addresses: [] });
    expect(asked).toEqual(['a', 'b']);
  });
});
