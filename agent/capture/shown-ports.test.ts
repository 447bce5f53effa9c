import { Worker } from 'node:worker_threads';
import { expect, test } from '@jest/globals';
import { createShownPorts, hashNumber, hashText, ShownPorts } from './shown-ports.js';

const [a, b] = [hashText('a'), hashText('b')];

test('a port is shown once per scope, and again after its release', () => {
  const ports = new ShownPorts(createShownPorts(1000), 0);
  const claim = ports.claim(a, 80);
  expect(claim).toBeGreaterThanOrEqual(0);
  expect(ports.claim(a, 80)).toBe(-1);
  expect(ports.claim(b, 80)).toBeGreaterThanOrEqual(0);
  expect(ports.claim(a, 81)).toBeGreaterThanOrEqual(0);
  ports.release(claim);
  expect(ports.claim(a, 80)).toBeGreaterThanOrEqual(0);
});

test('workers see each other; only the owner releases; a dead one is cleared by main', () => {
  const memory = createShownPorts(1000);
  const [one, two] = [new ShownPorts(memory, 0), new ShownPorts(memory, 1)];
  const claim = one.claim(a, 80);
  expect(two.claim(a, 80)).toBe(-1);
  two.release(claim);
  expect(two.claim(a, 80)).toBe(-1);
  new ShownPorts(memory, 1).releaseAll();
  expect(two.claim(a, 80)).toBe(-1);
  new ShownPorts(memory, 0).releaseAll();
  expect(two.claim(a, 80)).toBeGreaterThanOrEqual(0);
});

test('as many as it was made for find a place, nearly always the first one asked for', () => {
  const ports = new ShownPorts(createShownPorts(20_000), 0);
  let placed = 0;
  for (let i = 0; i < 20_000; i++)
    if (ports.claim(hashText(`10.0.${i >> 8}.${i & 255}`), 40_000 + (i % 1000)) >= 0) placed++;
  expect(placed).toBeGreaterThan(19_500);
});

test('the hash of a scope is of all its parts, in their order', () => {
  const scopes = [
    hashText('ab'),
    hashText('ba'),
    hashText('b', hashText('a', 1)),
    hashNumber(80, hashText('ab')),
    hashNumber(81, hashText('ab')),
    hashText('x', hashNumber(80, hashText('ab'))),
  ];
  expect(new Set(scopes).size).toBe(scopes.length);
  expect(hashText('b', hashText('a'))).toBe(hashText('ab'));
});

test('two threads that claim the same ports at once never both get one', async () => {
  const memory = createShownPorts(30_000);
  const barrier = new SharedArrayBuffer(4);
  const module = new URL('./shown-ports.js', import.meta.url).href;
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData.module).then(({ ShownPorts }) => {
      const ports = new ShownPorts(workerData.memory, workerData.owner);
      const barrier = new Int32Array(workerData.barrier);
      Atomics.add(barrier, 0, 1);
      while (Atomics.load(barrier, 0) < 2);
      const got = [];
      for (let port = 1; port <= 20000; port++) if (ports.claim(42, port) >= 0) got.push(port);
      parentPort.postMessage(got);
    });`;
  const results = await Promise.all(
    [0, 1].map(
      (owner) =>
        new Promise<number[]>((resolve, reject) => {
          const worker = new Worker(code, { eval: true, workerData: { module, memory, owner, barrier } });
          worker.once('message', resolve).once('error', reject);
        }),
    ),
  );
  const first = new Set(results[0]);
  expect(results[1]!.filter((port) => first.has(port))).toEqual([]);
  expect(first.size + results[1]!.length).toBeGreaterThan(19_000);
});
