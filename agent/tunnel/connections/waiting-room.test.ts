import { expect, test } from '@jest/globals';
import { createLog } from '../../../mesh/log/index.js';
import { TestReactor } from '../../../test/support/reactor.js';
import { type Waiting, WaitingRoom } from './waiting-room.js';

const log = createLog({ level: 'silent', component: 'test' });

class Guest implements Waiting {
  readonly podUid: string;
  canStart = false;
  events: string[] = [];

  constructor(podUid = 'pod') {
    this.podUid = podUid;
  }

  tryStart(): boolean {
    if (this.canStart) this.events.push('started');
    return this.canStart;
  }

  giveUp(): void {
    this.events.push('gave up');
  }
}

test('who can go on does, once; who cannot is given up after maxWaitMs', async () => {
  using t = new TestReactor();
  const room = new WaitingRoom({ maxWaitMs: 60, maxWaiting: 10 }, { reactor: t.reactor, log });
  const [ready, late] = [new Guest(), new Guest()];
  room.add(ready);
  room.add(late);
  ready.canStart = true;
  room.poke();
  room.poke();
  expect([ready.events, late.events, room.size]).toEqual([['started'], [], 1]);
  await t.until(() => room.size === 0);
  expect(late.events).toEqual(['gave up']);
  await t.for(80);
  expect(ready.events).toEqual(['started']);
});

test('many that can go on do so over several turns, in their order; what changes meanwhile is looked at, too', async () => {
  using t = new TestReactor();
  const room = new WaitingRoom({ maxWaitMs: 10_000, maxWaiting: 10 }, { reactor: t.reactor, log });
  const order: number[] = [];
  let early = false;
  const guests = [0, 1, 2, 3].map((index) => {
    const guest = new Guest();
    guest.tryStart = () => {
      if (index === 0 && !early) return false;
      const untilMs = performance.now() + 3;
      while (performance.now() < untilMs);
      order.push(index);
      return true;
    };
    room.add(guest);
    return guest;
  });
  room.poke();
  expect(order.length).toBeLessThan(3);
  early = true;
  room.poke();
  await t.until(() => room.size === 0);
  expect(order).toEqual([1, 2, 3, 0]);
  expect(guests.map(({ events }) => events)).toEqual([[], [], [], []]);
});

test('more than maxWaiting are given up at once; a pod that leaves takes its own along; who is removed hears nothing', async () => {
  using t = new TestReactor();
  const room = new WaitingRoom({ maxWaitMs: 50, maxWaiting: 3 }, { reactor: t.reactor, log });
  const guests = [new Guest('a'), new Guest('b'), new Guest('b'), new Guest('a')];
  for (const guest of guests) room.add(guest);
  room.giveUpPod('a');
  room.remove(guests[1]!);
  expect(guests.map(({ events }) => events)).toEqual([['gave up'], [], [], ['gave up']]);
  expect(room.size).toBe(1);
  await t.for(80);
  expect(guests.map(({ events }) => events)).toEqual([['gave up'], [], ['gave up'], ['gave up']]);
});

test('one whose start throws is given up, and those behind it go on', () => {
  using t = new TestReactor();
  const room = new WaitingRoom({ maxWaitMs: 1_000, maxWaiting: 10 }, { reactor: t.reactor, log });
  const [broken, sound] = [new Guest(), new Guest()];
  broken.tryStart = () => {
    throw new Error('no such descriptor');
  };
  room.add(broken);
  room.add(sound);
  sound.canStart = true;
  room.poke();
  expect([broken.events, sound.events, room.size]).toEqual([['gave up'], ['started'], 0]);
});
