import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

const MAIN = fileURLToPath(new URL('../../test/support/pool-main.js', import.meta.url));
const NO_DESCRIPTORS = fileURLToPath(new URL('../../test/support/no-descriptors-main.js', import.meta.url));

async function startWithDescriptors(limit: number): Promise<{ child: ChildProcess; port: number }> {
  const command = `ulimit -n ${limit}; exec "$0" "$1" stop`;
  const child = spawn('sh', ['-c', command, process.execPath, MAIN], { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  return { child, port: Number(line.toString()) };
}

/** User and system CPU time so far; /proc/pid/stat counts in ticks of 10 ms. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

test('out of descriptors: those served go on, the listener sleeps without spinning, the rest are served when there is room', async () => {
  const { child, port } = await startWithDescriptors(64);
  const sockets: net.Socket[] = [];
  try {
    const answered = new Set<net.Socket>();
    for (let i = 0; i < 80; i++) {
      const socket = net.connect(port, '127.0.0.1');
      socket.on('error', () => {});
      socket.on('data', () => answered.add(socket));
      socket.write('x');
      sockets.push(socket);
    }
    await sleep(500);
    const served = [...answered];
    expect(served.length).toBeGreaterThan(5);
    expect(served.length).toBeLessThan(64);
    const before = cpuMs(child.pid!);
    await sleep(1000);
    expect(cpuMs(child.pid!) - before).toBeLessThan(400);
    expect(answered.size).toBe(served.length);
    const again = once(served[0]!, 'data');
    served[0]!.write('still served');
    expect(String((await again)[0])).toBe('still served');
    while (answered.size < sockets.length) {
      for (const socket of answered) socket.destroy();
      await sleep(50);
    }
  } finally {
    for (const socket of sockets) socket.destroy();
    child.kill('SIGKILL');
  }
}, 30_000);

test('out of descriptors: a dial, also into a namespace, and a new engine fail as such, and work again when there is room', async () => {
  const command = 'ulimit -n 64; exec "$0" "$1"';
  const child = spawn('sh', ['-c', command, process.execPath, NO_DESCRIPTORS], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  expect(JSON.parse(line.toString())).toEqual({
    without: ['NO_RESOURCES EMFILE', 'NO_RESOURCES EMFILE', 'engine_create: EMFILE'],
    withThem: ['connected', 'connected', 'made'],
  });
}, 30_000);
