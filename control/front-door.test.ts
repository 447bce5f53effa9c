import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { FRONT_DOOR_DEFAULTS, FrontDoor, type FrontDoorOptions } from './front-door.js';

describe('the front door', () => {
  const clients: Socket[] = [];
  let door: FrontDoor | null = null;

  afterEach(() => {
    door?.close();
    for (const client of clients.splice(0)) client.destroy();
  });

  /** What it let in; each costs so much time. */
  async function open(options: Partial<FrontDoorOptions> = {}, costMs = 0) {
    const greetings: string[] = [];
    const letIn = (socket: Socket) => {
      for (const endMs = performance.now() + costMs; performance.now() < endMs; );
      greetings.push(String(socket.read()));
      socket.on('data', (chunk: Buffer) => socket.write(`heard ${chunk}`));
      socket.resume();
    };
    door = new FrontDoor({ ...FRONT_DOOR_DEFAULTS, ...options }, { letIn });
    const port = await door.listen({ address: '127.0.0.1', port: 0 });
    return { greetings, port };
  }

  async function client(port: number, greeting = ''): Promise<Socket> {
    const socket = connect({ port, host: '127.0.0.1' }).on('error', () => {});
    clients.push(socket);
    await once(socket, 'connect');
    if (greeting !== '') socket.write(greeting);
    return socket;
  }

  /** In good order or by a reset. */
  async function closed(socket: Socket): Promise<void> {
    socket.resume();
    if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  }

  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) await sleep(5);
  }

  test('lets in who has greeted, with what it said; what it says later is heard', async () => {
    const { greetings, port } = await open();
    const silent = await client(port);
    const speaking = await client(port, 'hello');
    await until(() => greetings.length === 1);
    expect(greetings).toEqual(['hello']);
    speaking.write('more');
    expect(String((await once(speaking, 'data'))[0])).toBe('heard more');
    silent.write('late');
    await until(() => greetings.length === 2);
    expect(greetings).toEqual(['hello', 'late']);
  });

  test('many at once come in one after another, and others have their turn between', async () => {
    const { greetings, port } = await open({ turnMs: 5 }, 5);
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await Promise.all(Array.from({ length: 40 }, (_, index) => client(port, `${index}`)));
    await until(() => greetings.length === 40);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(10);
  });

  test('who has given up while it waited is not let in', async () => {
    const { greetings, port } = await open({ turnMs: 1 }, 50);
    const waiting = await Promise.all(Array.from({ length: 20 }, (_, index) => client(port, `${index}`)));
    await until(() => greetings.length >= 2);
    for (const socket of waiting) socket.destroy();
    await sleep(500);
    expect(greetings.length).toBeLessThan(15);
  });

  test('who says nothing is closed', async () => {
    const { port } = await open({ greetingTimeoutMs: 50 });
    await closed(await client(port));
  });

  test('who says too much before it is let in is closed', async () => {
    const { greetings, port } = await open({ turnMs: 0 }); // nobody is let in
    const loud = await client(port);
    loud.write(Buffer.alloc(8 << 20));
    await closed(loud);
    expect(greetings).toEqual([]);
  });

  test('no more wait than may: of many that say nothing the oldest gives way to one that comes', async () => {
    const { greetings, port } = await open({ maxWaiting: 2 });
    const silent = [await client(port), await client(port)];
    await client(port, 'hello');
    await until(() => greetings.length === 1);
    await closed(silent[0]!);
    expect(silent[1]!.closed).toBe(false);
  });

  test('where all that wait have greeted, one that comes is closed', async () => {
    const { greetings, port } = await open({ maxWaiting: 2, turnMs: 0 }); // nobody is let in
    await client(port, 'one');
    await client(port, 'two');
    await sleep(100);
    await closed(await client(port, 'three'));
    expect(greetings).toEqual([]);
  });
});
