import { closeSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type PassChannel, PassListener } from '../../native/net/index.js';
import { Lines, type Message } from './lines.js';
import { agentSocket, openRunFolder } from './run-folder.js';
import { refuseStranger } from './server.js';
import { type HandedPod, HandoverError, type HandoverIdentity } from './types.js';

const answerTimeoutMs = 10_000;
const passTimeoutMs = 5_000;
const busyRetryMs = 200;
const maxBusyGone = 10;
const yieldTimeoutMs = 20_000;

export interface TakeoverOptions extends HandoverIdentity {
  readonly runDir: string;
}

/** What the agent before us has given. Until `commit` it serves, too, and goes on if we end. */
export interface Takeover {
  /** Their sockets are ours. */
  readonly pods: readonly HandedPod[];
  /** We serve: the agent before us stops accepting. Resolves when its admin ports are free. Throws TAKEOVER_LOST if it has gone on without us. */
  commit(): Promise<void>;
  /** The agent before us goes on. */
  abandon(): void;
}

/** True: an agent runs here that can be taken over from. Throws RUN_DIR_UNSAFE. */
export async function hasPredecessor(runDir: string): Promise<boolean> {
  openRunFolder(runDir);
  const socket = await tryConnect(agentSocket(runDir));
  socket?.destroy();
  return socket !== null;
}

/** Asks the agent that runs on this node for its pods; null: none runs. Waits while it is busy. Throws HandoverError. */
export async function takeOver(options: TakeoverOptions): Promise<Takeover | null> {
  openRunFolder(options.runDir);
  let wasBusy = 0;
  for (;;) {
    const socket = await tryConnect(agentSocket(options.runDir));
    // A busy one may be gone because another has just taken over, who is about to listen.
    if (socket === null && (wasBusy === 0 || wasBusy > maxBusyGone)) return null;
    const taken = socket === null ? 'busy' : await take(options, new Lines(socket));
    wasBusy = socket === null ? wasBusy + 1 : 1;
    if (taken !== 'busy') return taken;
    await sleep(busyRetryMs);
  }
}

async function take(options: TakeoverOptions, lines: Lines): Promise<Takeover | 'busy'> {
  const { node, bpffs, runDir } = options;
  const pods: HandedPod[] = [];
  try {
    using listener = new PassListener({
      path: join(runDir, `pass.${process.pid}.${Date.now()}`),
      timeoutMs: passTimeoutMs,
    });
    lines.send({ kind: 'take', version: 1, node, bpffs, path: listener.path });
    if ((await receiveAll(listener, lines, pods)) === 'busy') return 'busy';
  } catch (error) {
    closeSockets(pods);
    lines.close();
    throw error;
  }
  return { pods, commit: () => commit(options, lines), abandon: () => lines.close() };
}

async function receiveAll(listener: PassListener, lines: Lines, pods: HandedPod[]): Promise<'all' | 'busy'> {
  let channel: PassChannel | null = null;
  try {
    for (;;) {
      const message = await lines.next(answerTimeoutMs);
      switch (message?.kind) {
        case 'pod':
          if (channel === null) {
            channel = listener.accept();
            refuseStranger(channel);
          }
          pods.push(receivePod(channel, message));
          lines.send({ kind: 'got' });
          break;
        case 'all':
          return 'all';
        case 'busy':
          lines.close();
          return 'busy';
        case 'refused':
          throw new HandoverError('PEER_REFUSED', message.reason);
        default:
          throw new HandoverError(
            'PREDECESSOR_SILENT',
            'the agent that runs here does not hand over: end it, then start this one',
          );
      }
    }
  } finally {
    channel?.[Symbol.dispose]();
  }
}

function receivePod(channel: PassChannel, message: Extract<Message, { kind: 'pod' }>): HandedPod {
  const { uid, netnsCookie, hasCertificate } = message;
  const sockets: Record<string, readonly number[]> = {};
  for (const kind of message.socketKinds) {
    const passed = channel.receive();
    if (passed?.text !== kind)
      throw new HandoverError('PREDECESSOR_SILENT', `sockets ${kind} of pod ${uid} did not come`, {
        uid,
        kind,
      });
    sockets[kind] = passed.fds;
  }
  return { uid, netnsCookie: BigInt(netnsCookie), hasCertificate, sockets };
}

/** Of pods that nobody has taken. */
export function closeSockets(pods: readonly HandedPod[]): void {
  for (const { sockets } of pods)
    for (const fds of Object.values(sockets)) for (const fd of fds) closeSync(fd);
}

async function commit({ runDir }: TakeoverOptions, lines: Lines): Promise<void> {
  lines.send({ kind: 'ready' });
  const isOurs = (await lines.next(yieldTimeoutMs))?.kind === 'yours';
  lines.close();
  // It may have died, or been told to stop, meanwhile: then we are the only one.
  if (isOurs || !(await hasPredecessor(runDir))) return;
  throw new HandoverError('TAKEOVER_LOST', 'the agent before this one has gone on by itself');
}

function tryConnect(path: string): Promise<Socket | null> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(socket));
    // Nothing there, or a file that nobody listens at any more.
    socket.once('error', () => resolve(null));
  });
}
