import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from '@jest/globals';
import { readMessages } from './listeners.js';

let server: Server | null = null;
let client: Socket | null = null;
afterEach(() => {
  client?.destroy();
  server?.close();
});

const always = { tryTake: () => true };
type Handle = (bytes: Buffer, respond: (answer: Buffer) => void) => void;

/** The server's end of a connection, whose messages `handle` gets. */
async function serve(handle: Handle, rate: { tryTake(): boolean } = always): Promise<Socket> {
  const listening = createServer({ allowHalfOpen: true });
  server = listening;
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => listening.once('connection', resolve));
  client = connect((listening.address() as { port: number }).port, '127.0.0.1');
  const socket = await accepted;
  socket.on('error', () => {});
  client.on('error', () => {});
  readMessages(socket, rate, handle);
  return socket;
}

const message = (text: string) => Buffer.concat([Buffer.from([0, text.length]), Buffer.from(text)]);

test('messages in any pieces; half-closed clients get their answers before the end', async () => {
  await serve((bytes, respond) => setImmediate(() => respond(bytes)));
  const all = Buffer.concat(['a', 'bc', 'def'].map(message));
  for (const byte of all) client!.write(Buffer.from([byte]));
  client!.end();
  const pieces: Buffer[] = [];
  for await (const piece of client!) pieces.push(piece as Buffer);
  expect(Buffer.concat(pieces)).toEqual(all);
});

test('a client that does not read its answers is not read either', async () => {
  let asked = 0;
  const answer = Buffer.alloc(60_000);
  const socket = await serve((_, respond) => {
    asked++;
    respond(answer);
  });
  client!.pause();
  client!.write(Buffer.concat(Array.from({ length: 20_000 }, () => message('question'))));
  let before = -1;
  while (asked !== before) {
    before = asked;
    await sleep(300);
  }
  expect(asked).toBeLessThan(2_000); // what socket buffers hold
  expect(socket.writableLength).toBeLessThan(2_000_000);
});

test('who asks too fast waits, and gets every answer', async () => {
  let tokens = 3;
  await serve((bytes, respond) => respond(bytes), { tryTake: () => tokens-- > 0 });
  const all = Buffer.concat(['a', 'b', 'c', 'd', 'e'].map(message));
  let received = Buffer.alloc(0);
  client!.on('data', (bytes: Buffer) => {
    received = Buffer.concat([received, bytes]);
  });
  client!.end(all);
  await sleep(200);
  expect(received).toEqual(all.subarray(0, 9));
  tokens = 100;
  while (received.length < all.length) await sleep(10);
  expect(received).toEqual(all);
});
