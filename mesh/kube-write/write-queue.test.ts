import { afterEach, describe, expect, test } from '@jest/globals';
import { createLog } from '../log/index.js';
import { WRITE_QUEUE_DEFAULTS, WriteQueue, type WriteQueueOptions } from './write-queue.js';

const log = createLog({ level: 'silent', component: 'test' });
let queue: WriteQueue;

afterEach(() => queue.clear());

function make(
  write: (key: string) => Promise<boolean>,
  options: Partial<WriteQueueOptions> = {},
): (...keys: string[]) => void {
  queue = new WriteQueue({ ...WRITE_QUEUE_DEFAULTS, ...options }, { write, log, random: () => 0.5 });
  return (...keys) => {
    for (const key of keys) queue.add(key);
  };
}

async function until(what: () => boolean): Promise<void> {
  for (const endMs = Date.now() + 10_000; !what(); ) {
    if (Date.now() > endMs) throw new Error(`not within 10 s: ${what.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe('WriteQueue', () => {
  test('each key once, however often it was added before its turn', async () => {
    const written: string[] = [];
    const add = make(async (key) => written.push(key) > 0);
    add('a', 'b', 'a', 'a');
    await until(() => written.length === 2);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(written.sort()).toEqual(['a', 'b']);
    expect(queue.counts).toEqual({ written: 2, failed: 0 });
  });

  test('a key that is added while it is written is looked at again, by one call at a time', async () => {
    let [calls, running, most] = [0, 0, 0];
    const add = make(
      async () => {
        calls++;
        most = Math.max(most, ++running);
        if (calls === 1) add('a');
        await new Promise((resolve) => setTimeout(resolve, 10));
        running--;
        return false;
      },
      { firstMs: 1 },
    );
    add('a');
    await until(() => calls === 2);
    expect(most).toBe(1);
  });

  test('no more at a time and a second than allowed; what had nothing to write does not count', async () => {
    let [running, most, calls] = [0, 0, 0];
    const add = make(
      async (key) => {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 1));
        running--;
        calls++;
        return key.startsWith('write');
      },
      { burst: 5, perSecond: 10, concurrency: 3 },
    );
    add(...Array.from({ length: 500 }, (_, i) => `nothing-${i}`));
    await until(() => calls === 500);
    const startedMs = performance.now();
    add(...Array.from({ length: 10 }, (_, i) => `write-${i}`));
    await until(() => queue.counts.written === 10);
    expect(performance.now() - startedMs).toBeGreaterThan(350);
    expect(most).toBe(3);
  });

  test('what fails is tried again, less and less often', async () => {
    const atMs: number[] = [];
    const add = make(
      async () => {
        atMs.push(performance.now());
        throw new Error('no');
      },
      { firstMs: 20, mostMs: 1000 },
    );
    add('a');
    await until(() => atMs.length === 5);
    const waits = atMs.slice(1).map((ms, i) => ms - atMs[i]!);
    expect(waits[3]!).toBeGreaterThan(150);
    expect(queue.counts.failed).toBe(5);
  });

  test('two writers that undo each other slow down', async () => {
    let writes = 0;
    const add = make(
      async () => {
        writes++;
        setTimeout(() => add('a'), 1);
        return true;
      },
      { firstMs: 20, mostMs: 10_000 },
    );
    add('a');
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(writes).toBeLessThanOrEqual(7);
    expect(writes).toBeGreaterThan(2);
  });

  test('cleared: nothing that waits is written, and what fails afterwards is not tried again', async () => {
    let calls = 0;
    const add = make(
      async () => {
        calls++;
        await new Promise((resolve) => setTimeout(resolve, 20));
        throw new Error('no');
      },
      { concurrency: 1, firstMs: 5 },
    );
    add('a', 'b', 'c');
    await until(() => calls === 1);
    queue.clear();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(calls).toBe(1);
    expect(queue.size).toBe(0);
  });
});
