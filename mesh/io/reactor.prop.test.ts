import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { Recorder, TestReactor } from '../../test/support/reactor.js';
import { nodeTlsOptions, TestCa } from '../../test/support/test-ca.js';
import { EngineTlsContexts } from './tls-context.js';
import type { Connection } from './types.js';

const tlsContexts = new EngineTlsContexts();

const HOST = '127.0.0.1';
const ca = new TestCa();
const serverMaterial = ca.issue('spiffe://td/ns/a/sa/server');
const nodeClient = nodeTlsOptions(ca.issue('spiffe://td/ns/a/sa/client'));

/** One of ours (accepted) and its node:net or node:tls peer, with what each has sent: the model. */
class Subject {
  readonly recorder: Recorder;
  connection: Connection | null = null;
  socket: net.Socket;
  readonly toUs: Buffer[] = [];
  readonly toPeer: Buffer[] = [];
  readonly gotByPeer: Buffer[] = [];
  peerEnded = false;
  weEnded = false;
  peerSawEnd = false;
  /** Either side was reset or closed: from then on only prefixes are promised. */
  isTorn = false;

  constructor(t: TestReactor, socket: net.Socket) {
    this.recorder = new Recorder(t.reactor);
    this.socket = socket;
    socket.on('data', (chunk) => this.gotByPeer.push(chunk));
    socket.on('end', () => {
      this.peerSawEnd = true;
    });
    socket.on('error', () => {});
  }
}

type Operation = readonly [
  kind:
    | 'peerWrite'
    | 'peerEnd'
    | 'peerReset'
    | 'peerPause'
    | 'write'
    | 'slab'
    | 'flush'
    | 'pause'
    | 'resume'
    | 'shutdown'
    | 'reset'
    | 'close'
    | 'turn'
    | 'settle',
  subject: number,
  bytes: number,
];

/** Weights: transfers and turns are common, ends are rare. */
const operation: fc.Arbitrary<Operation> = fc.tuple(
  fc.oneof(
    ...(
      [
        [6, 'peerWrite'],
        [6, 'write'],
        [6, 'slab'],
        [8, 'turn'],
        [3, 'settle'],
        [2, 'flush'],
        [2, 'pause'],
        [3, 'resume'],
        [1, 'peerPause'],
        [1, 'peerEnd'],
        [1, 'shutdown'],
        [1, 'peerReset'],
        [1, 'reset'],
        [1, 'close'],
      ] as const
    ).map(([weight, kind]) => ({ weight, arbitrary: fc.constant(kind) })),
  ),
  fc.nat(2),
  fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 120_000 })),
);

function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + seed) & 0xff;
  return bytes;
}

function apply(subject: Subject, kind: Operation[0], length: number, seed: number): void {
  const { connection, socket } = subject;
  if (connection === null) return;
  switch (kind) {
    case 'peerWrite':
      if (subject.peerEnded || !socket.writable) return;
      subject.toUs.push(pattern(length, seed));
      socket.write(subject.toUs.at(-1)!);
      return;
    case 'peerEnd':
      subject.peerEnded = true;
      socket.end();
      return;
    case 'peerReset':
      subject.isTorn = true;
      // Node leaks the handle when a socket is reset while its end is on the way.
      if (subject.peerEnded || socket instanceof tls.TLSSocket) socket.destroy();
      else socket.resetAndDestroy();
      return;
    case 'peerPause':
      if (socket.isPaused()) socket.resume();
      else socket.pause();
      return;
    case 'write':
    case 'slab':
      if (subject.weEnded || !connection.isOpen) return;
      subject.toPeer.push(pattern(length, seed));
      if (kind === 'write') connection.write(subject.toPeer.at(-1)!, 0, length);
      else {
        const slab = connection.reserve(length);
        slab.end += subject.toPeer.at(-1)!.copy(slab.bytes, slab.end);
      }
      return;
    case 'flush':
      connection.flush();
      return;
    case 'pause':
      connection.pauseReading();
      return;
    case 'resume':
      connection.resumeReading();
      return;
    case 'shutdown':
      subject.weEnded = true;
      connection.shutdownWrite();
      return;
    case 'reset':
      subject.isTorn = true;
      connection.reset();
      return;
    case 'close':
      subject.weEnded = true;
      // What the peer sends from now on is thrown away.
      subject.isTorn = true;
      connection.close();
      return;
    default:
  }
}

function expectPrefix(got: Buffer, sent: Buffer): void {
  expect(got.length).toBeLessThanOrEqual(sent.length);
  expect(got.equals(sent.subarray(0, got.length))).toBe(true);
}

/** After everything has settled, what arrived is what was sent. */
function check(subject: Subject): void {
  const sentToUs = Buffer.concat(subject.toUs);
  const sentToPeer = Buffer.concat(subject.toPeer);
  const byPeer = Buffer.concat(subject.gotByPeer);
  expectPrefix(subject.recorder.received, sentToUs);
  expectPrefix(byPeer, sentToPeer);
  if (subject.isTorn) return;
  expect(subject.recorder.received.length).toBe(sentToUs.length);
  expect(byPeer.length).toBe(sentToPeer.length);
  expect(subject.recorder.hasEnded).toBe(subject.peerEnded);
  expect(subject.peerSawEnd).toBe(subject.weEnded);
  expect(subject.recorder.error).toBeNull();
}

function isSettled(subject: Subject): boolean {
  if (subject.isTorn) return true;
  const count = (chunks: Buffer[]) => chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  return (
    subject.recorder.received.length === count(subject.toUs) &&
    count(subject.gotByPeer) === count(subject.toPeer) &&
    subject.recorder.hasEnded === subject.peerEnded &&
    subject.peerSawEnd === subject.weEnded
  );
}

async function runOrder(operations: readonly Operation[], isTls: boolean): Promise<void> {
  using t = new TestReactor({ lingerMs: 300 });
  using listening = new ListeningSocket();
  const context = isTls ? tlsContexts.create(serverMaterial) : 0;
  const subjects: Subject[] = [];
  const byPort = (port: number) => subjects.find(({ socket }) => socket.localPort === port)!;
  const options = isTls ? { tls: () => ({ context, handshakeTimeoutMs: 20_000 }) } : {};
  const onAccepted = (connection: Connection) => {
    const subject = byPort(connection.remote.port);
    subject.connection = connection;
    return subject.recorder;
  };
  t.reactor.listen({ fd: listening.fd, ...options }, { onAccepted });
  const at = { port: listening.port, host: HOST, allowHalfOpen: true };
  for (let i = 0; i < 3; i++) {
    const socket = isTls
      ? tls.connect({ ...at, ...nodeClient, ALPNProtocols: ['h2'], checkServerIdentity: () => undefined })
      : net.connect(at);
    subjects.push(new Subject(t, socket));
    await t.during(once(socket, isTls ? 'secureConnect' : 'connect'));
  }
  await t.until(() =>
    subjects.every(({ connection, recorder }) => connection !== null && (!isTls || recorder.isConnected)),
  );
  for (const [seed, [kind, index, bytes]] of operations.entries()) {
    if (kind === 'turn') t.reactor.turn(0);
    else if (kind === 'settle') await t.for(2);
    else apply(subjects[index]!, kind, bytes, seed);
  }
  for (const { connection, socket } of subjects) {
    connection!.resumeReading();
    socket.resume();
  }
  await t.until(() => subjects.every(isSettled), 'all bytes and ends to arrive');
  for (const subject of subjects) check(subject);
  for (const { connection, socket } of subjects) {
    connection!.reset();
    socket.destroy();
  }
  await t.until(() => t.reactor.native.stats().connections === 1, 'lingering connections to go');
  expect(t.reactor.native.stats().pendingBytes).toBe(0);
  expect(t.reactor.counters.exceptions).toBe(0);
  if (isTls) tlsContexts.release(context);
}

test.each([
  ['TCP', false, 60],
  ['TLS', true, 30],
] as const)(
  'any order of operations on several connections: bytes and ends arrive as sent, nothing is left over (%s)',
  async (_name, isTls, numRuns) => {
    const property = fc.asyncProperty(fc.array(operation, { minLength: 5, maxLength: 60 }), (operations) =>
      runOrder(operations, isTls),
    );
    await fc.assert(property, { seed: 20_260_901, numRuns });
  },
  120_000,
);
