import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { expect } from '@jest/globals';
import type { Connection } from '../../mesh/io/index.js';
import { ListeningSocket } from './listening-socket.js';
import { Recorder, TestReactor } from './reactor.js';

export interface Pair extends Disposable {
  readonly t: TestReactor;
  /** Our side, accepted. */
  readonly connection: Connection;
  readonly recorder: Recorder;
  /** node:net's side. */
  readonly socket: net.Socket;
}

/** An accepted connection and the node:net socket at its other end. */
export async function connectedPair(
  makeRecorder: (t: TestReactor) => Recorder = (t) => new Recorder(t.reactor),
  t = new TestReactor(),
): Promise<Pair> {
  const listening = new ListeningSocket();
  const recorder = makeRecorder(t);
  let connection: Connection | null = null;
  const onAccepted = (accepted: Connection) => {
    connection = accepted;
    return recorder;
  };
  const listener = t.reactor.listen({ fd: listening.fd }, { onAccepted });
  const socket = net.connect({ port: listening.port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => {});
  await t.until(() => connection !== null && socket.readyState === 'open');
  listener.stop();
  listening.close();
  const dispose = () => {
    socket.destroy();
    t[Symbol.dispose]();
  };
  return { t, connection: connection!, recorder, socket, [Symbol.dispose]: dispose };
}

/** The loop has nothing to do: a turn sleeps for as long as it may. */
export function expectIdle(t: TestReactor): void {
  for (let i = 0; i < 20; i++) t.reactor.turn(0);
  const begin = performance.now();
  t.reactor.turn(60);
  expect(performance.now() - begin).toBeGreaterThan(50);
}

/** node:net as the server. */
export async function nodeServer(
  onSocket: (socket: net.Socket) => void,
): Promise<{ server: net.Server; to: { address: string; port: number } }> {
  const server = net.createServer({ allowHalfOpen: true }, onSocket);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, to: { address: '127.0.0.1', port: (server.address() as net.AddressInfo).port } };
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
