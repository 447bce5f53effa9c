import { chmodSync, renameSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import { connectPass, type PassChannel } from '../../native/net/index.js';
import { Lines, type Message } from './lines.js';
import { agentSocket, openRunFolder } from './run-folder.js';
import { type HandedPod, HandoverError, type HandoverHost, type HandoverIdentity } from './types.js';

/** One message each way on one machine. */
const answerTimeoutMs = 5_000;
const passTimeoutMs = 2_000;
/** The next agent has this long to be ready; it knows the mesh's configuration already. */
const readyTimeoutMs = 60_000;

type Take = Extract<Message, { kind: 'take' }>;

export interface HandoverServerOptions extends HandoverIdentity {
  readonly runDir: string;
}

/** The old agent's side: gives what it has to the next agent of this node, and gives way when that is ready. One takeover at a time. */
export class HandoverServer {
  readonly #options: HandoverServerOptions;
  readonly #host: HandoverHost;
  readonly #log: Log;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isBusy = false;

  constructor(options: HandoverServerOptions, deps: { readonly host: HandoverHost; readonly log: Log }) {
    this.#options = options;
    this.#host = deps.host;
    this.#log = deps.log;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** From now on the next agent finds this one, and nobody before it. Throws HandoverError, or what listening throws. */
  async start(): Promise<void> {
    const { runDir } = this.#options;
    openRunFolder(runDir);
    const path = agentSocket(runDir);
    const own = `${path}.${process.pid}`;
    rmSync(own, { force: true }); // of an agent that had our number and was killed here
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject).listen(own, resolve);
    });
    chmodSync(own, 0o600);
    renameSync(own, path);
  }

  /** The file stays: it may be the next agent's by now, and one that nobody listens at says that nobody is there. */
  stop(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    const lines = new Lines(socket);
    this.#serve(lines).then(
      () => socket.end(),
      (error: unknown) => {
        this.#log.error({ error: messageOf(error) }, 'handover failed');
        socket.destroy();
      },
    );
  }

  async #serve(lines: Lines): Promise<void> {
    const take = await lines.next(answerTimeoutMs);
    if (take?.kind !== 'take') return;
    const problem = this.#problemOf(take);
    if (problem !== null) {
      lines.send({ kind: 'refused', reason: problem });
      return;
    }
    if (this.#isBusy) {
      lines.send({ kind: 'busy' });
      return;
    }
    this.#isBusy = true;
    const isOver = await this.#handOver(take, lines).finally(() => {
      this.#isBusy = false;
    });
    if (isOver) lines.send({ kind: 'yours' });
  }

  #problemOf({ version, node, bpffs }: Take): string | null {
    const own = this.#options;
    if (version !== 1) return `handover version ${version} is not known`;
    if (node !== own.node) return `this is the agent of node ${own.node}, not ${node}`;
    if (bpffs !== own.bpffs) return `this agent pins at ${own.bpffs}, not ${bpffs}`;
    return null;
  }

  /** True: the next agent has taken over. Else everything is as before. */
  async #handOver(take: Take, lines: Lines): Promise<boolean> {
    let isReady = false;
    try {
      const pods = await this.#host.hold();
      this.#log.info({ pods: pods.length }, 'the next agent is taking over');
      isReady = (await this.#give(pods, take.path, lines)) && (await isSaid(lines, 'ready', readyTimeoutMs));
    } finally {
      if (!isReady) {
        this.#log.warn({}, 'the next agent has not taken over: this one goes on');
        this.#host.resume();
      }
    }
    if (!isReady) return false;
    await this.#host.yield();
    // From here on nobody who starts finds this one.
    this.#server.close();
    return true;
  }

  async #give(pods: readonly HandedPod[], path: string, lines: Lines): Promise<boolean> {
    using channel = connectPass({ path, timeoutMs: passTimeoutMs });
    refuseStranger(channel);
    for (const { uid, netnsCookie, hasCertificate, sockets } of pods) {
      const kinds = Object.entries(sockets);
      for (const [kind, fds] of kinds) channel.send(kind, fds);
      const socketKinds = kinds.map(([kind]) => kind);
      lines.send({ kind: 'pod', uid, netnsCookie: String(netnsCookie), hasCertificate, socketKinds });
      if (!(await isSaid(lines, 'got', answerTimeoutMs))) return false;
    }
    lines.send({ kind: 'all' });
    return true;
  }
}

async function isSaid(lines: Lines, kind: Message['kind'], timeoutMs: number): Promise<boolean> {
  return (await lines.next(timeoutMs))?.kind === kind;
}

/** Throws PEER_REFUSED for a process of another user. */
export function refuseStranger(channel: PassChannel): void {
  const { pid, uid } = channel.peer;
  if (uid === process.geteuid!()) return;
  throw new HandoverError('PEER_REFUSED', `process ${pid} of uid ${uid} is no agent of ours`, { pid, uid });
}
