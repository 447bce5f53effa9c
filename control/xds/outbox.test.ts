import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { Outbox, type OutboxOptions, type Parcel, type Sender } from './outbox.js';

const OPTIONS: OutboxOptions = {
  ...{ maxBytes: 100, maxStalledBytes: 150 },
  ...{ stallMs: 1000, cutMs: 10_000, cutOvertaken: 3, cutAlwaysMs: 30_000, turnMs: 1000 },
};

let log: string[];
let outbox: Outbox;
const parcels = new Map<string, Parcel>();

beforeEach(() => {
  jest.useFakeTimers();
  log = [];
  parcels.clear();
  outbox = new Outbox(OPTIONS);
});

afterEach(() => {
  outbox.close();
  jest.useRealTimers();
});

/** Sends so much at its turn, once. */
const sender = (name: string, bytes: number): Sender => {
  const self: Sender = {
    flush: () => {
      log.push(name);
      parcels.set(name, outbox.sent(self, bytes));
    },
    tooSlow: () => log.push(`${name} is too slow`),
  };
  return self;
};

test('at once while there is room, then in order, each when something has arrived', () => {
  for (const name of ['a', 'b', 'c', 'd']) outbox.schedule(sender(name, 60));
  expect([log, outbox.bytes, outbox.waiting]).toEqual([['a', 'b'], 120, 2]);
  parcels.get('b')!.done();
  parcels.get('b')!.done(); // counts once
  jest.advanceTimersByTime(1);
  expect([log, outbox.bytes]).toEqual([['a', 'b', 'c'], 120]);
  parcels.get('a')!.done();
  parcels.get('c')!.done();
  jest.advanceTimersByTime(1);
  expect([log, outbox.bytes, outbox.waiting]).toEqual([['a', 'b', 'c', 'd'], 60, 0]);
});

test('who has nothing to send any more is left out; who asks twice is served once', () => {
  const [a, b, c] = [sender('a', 100), sender('b', 1), sender('c', 1)];
  for (const one of [a, b, c, c]) outbox.schedule(one);
  outbox.forget(b);
  parcels.get('a')!.done();
  jest.advanceTimersByTime(1);
  expect(log).toEqual(['a', 'c']);
});

test('what has stalled makes room, as long as there is not too much; where all are slow, it takes long until the oldest is cut off', () => {
  for (const name of ['a', 'b', 'c']) outbox.schedule(sender(name, 100));
  expect(log).toEqual(['a']);
  jest.advanceTimersByTime(1001);
  expect([log, outbox.bytes]).toEqual([['a', 'b'], 200]);
  jest.advanceTimersByTime(28_900);
  expect([log, outbox.bytes]).toEqual([['a', 'b'], 200]);
  jest.advanceTimersByTime(300);
  expect([log, outbox.bytes]).toEqual([['a', 'b', 'a is too slow', 'c'], 200]);
  for (const name of ['b', 'a', 'c']) parcels.get(name)!.done(); // nothing of a counts any more
  expect(outbox.bytes).toBe(0);
});

test('one that many others have overtaken is cut off sooner', () => {
  outbox.schedule(sender('a', 140));
  jest.advanceTimersByTime(1001);
  for (const name of ['b', 'c', 'd', 'e']) {
    outbox.schedule(sender(name, 100));
    if (name !== 'e') parcels.get(name)!.done();
  }
  jest.advanceTimersByTime(8800);
  expect(log).toEqual(['a', 'b', 'c', 'd', 'e']);
  jest.advanceTimersByTime(400);
  expect(log.at(-1)).toBe('a is too slow');
});

test('one that sends to itself while it is served waits for its next turn', () => {
  let turns = 0;
  const self: Sender = {
    flush: () => {
      if (++turns < 3) outbox.schedule(self);
    },
    tooSlow: () => {},
  };
  outbox.schedule(self);
  expect(turns).toBe(3);
});
