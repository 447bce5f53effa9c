import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { LineWriter } from './index.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'lines-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const line = (number: number) => `${number} ${'x'.repeat(number % 300)}\n`;
const lines = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => line(from + i)).join('');

test('lines arrive whole and in order; one that is longer than a piece, too', async () => {
  const file = join(folder, 'file');
  const fd = openSync(file, 'w');
  const writer = new LineWriter({ fd });
  const long = `${'y'.repeat(20_000)}\n`;
  writer.write(lines(0, 500));
  writer.write('');
  writer.write(long);
  writer.write(lines(500, 500));
  await writer.flush(10_000);
  closeSync(fd);
  expect(readFileSync(file, 'utf8')).toBe(lines(0, 500) + long + lines(500, 500));
  expect(writer.droppedLines).toBe(0);
});

test('a reader that stands still blocks nobody and bounds what waits; what is dropped is counted', async () => {
  const fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const fd = openSync(fifo, 'r+');
  const writer = new LineWriter({ fd, maxPendingBytes: 1_000_000 });
  let last = performance.now();
  let longestMs = 0;
  const ticking = setInterval(() => {
    longestMs = Math.max(longestMs, performance.now() - last);
    last = performance.now();
  }, 5);
  for (let i = 0; i < 100; i++) {
    writer.write(lines(i * 200, 200));
    await sleep(1);
  }
  expect(writer.droppedLines).toBeGreaterThan(10_000);
  expect(
    await Promise.race([writer.flush(50).then(() => 'gave up'), sleep(5_000, undefined, { ref: false })]),
  ).toBe('gave up');
  const reader = spawn('cat', [fifo], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  reader.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  await writer.flush(10_000);
  clearInterval(ticking);
  closeSync(fd);
  await once(reader, 'close');
  const got = text.split('\n').slice(0, -1);
  for (const one of got) expect(`${one}\n`).toBe(line(Number(one.split(' ')[0])));
  expect(got.length + writer.droppedLines).toBe(20_000);
  expect(longestMs).toBeLessThan(2_000);
}, 30_000);

test('a descriptor that fails loses its lines, counted, and ends no process', async () => {
  const fd = openSync('/dev/full', 'w');
  const writer = new LineWriter({ fd });
  writer.write(lines(0, 10));
  await writer.flush(10_000);
  expect(writer.droppedLines).toBe(10);
  closeSync(fd);
});
