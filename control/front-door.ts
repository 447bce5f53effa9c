import { createServer, type Server, type Socket } from 'node:net';
import type { SocketAddress } from '../mesh/common/address.js';

export interface FrontDoorOptions {
  /** Longest that connections are let in without a pause, milliseconds. */
  readonly turnMs: number;
  /** That wait, and that have not said anything yet. Where there are so many, the oldest that says nothing gives way to one that comes; without any that one is closed. */
  readonly maxWaiting: number;
  /** A connection that says nothing for so long is closed; milliseconds. */
  readonly greetingTimeoutMs: number;
}

export const FRONT_DOOR_DEFAULTS: FrontDoorOptions = {
  turnMs: 10,
  maxWaiting: 10_000,
  greetingTimeoutMs: 30_000,
};

interface Guest {
  readonly socket: Socket;
  readonly enter: () => void;
  /** Said so far. */
  bytes: number;
}

/** More than any ClientHello: who says so much before it is answered speaks no TLS. */
const MAX_GREETING_BYTES = 64 << 10;

/**
 * Lets connections in one after another, in short turns. A handshake costs a millisecond or two of CPU: a thousand begun at once are all finished too late for
 * their clients, who come again, without end. In a row the first are finished at once, and whoever has given up while it waited costs nothing.
 */
export class FrontDoor {
  readonly #options: FrontDoorOptions;
  readonly #letIn: (socket: Socket) => void;
  readonly #server: Server;
  /** Not let in yet, and still there. */
  readonly #guests = new Map<Socket, Guest>();
  /** Of those, who has said nothing, oldest first: to keep others out by silence must cost more than to come. */
  readonly #silent = new Set<Socket>();
  /** Those that have greeted, oldest first; some have gone. */
  readonly #waiting = new Set<Guest>();
  #next: NodeJS.Immediate | null = null;

  /** `letIn` is given sockets with their first bytes unread. */
  constructor(options: FrontDoorOptions, deps: { readonly letIn: (socket: Socket) => void }) {
    this.#options = options;
    this.#letIn = deps.letIn;
    this.#server = createServer({ noDelay: true }, (socket) => this.#receive(socket));
  }

  /** Resolves to the port as bound. */
  listen({ address, port }: SocketAddress): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host: address, port, backlog: 4096 }, () => {
        this.#server.off('error', reject);
        resolve((this.#server.address() as { port: number }).port);
      });
    });
  }

  /** Nobody is let in any more. */
  close(): void {
    if (this.#next !== null) clearImmediate(this.#next);
    this.#next = null;
    this.#server.close();
    for (const socket of this.#guests.keys()) socket.destroy();
  }

  #receive(socket: Socket): void {
    socket.on('error', ignore); // `close` follows
    if (this.#guests.size >= this.#options.maxWaiting && !this.#makeRoom()) {
      socket.destroy();
      return;
    }
    const said: Buffer[] = [];
    const gone = () => {
      this.#guests.delete(socket);
      this.#silent.delete(socket);
    };
    const leave = () => socket.destroy();
    const hear = (chunk: Buffer) => {
      said.push(chunk);
      this.#silent.delete(socket);
      guest.bytes += chunk.length;
      if (guest.bytes > MAX_GREETING_BYTES) leave();
      else this.#queue(guest);
    };
    const enter = () => {
      socket.off('data', hear).off('end', leave).off('close', gone).setTimeout(0, leave).pause();
      socket.unshift(Buffer.concat(said));
      this.#letIn(socket);
    };
    const guest: Guest = { socket, enter, bytes: 0 };
    this.#guests.set(socket, guest);
    this.#silent.add(socket);
    socket.on('data', hear).on('end', leave).on('close', gone);
    socket.setTimeout(this.#options.greetingTimeoutMs, leave);
  }

  #makeRoom(): boolean {
    for (const socket of this.#silent) {
      this.#silent.delete(socket);
      this.#guests.delete(socket);
      socket.destroy();
      return true;
    }
    return false;
  }

  #queue(guest: Guest): void {
    this.#waiting.add(guest);
    this.#next ??= setImmediate(() => this.#serve());
  }

  #serve(): void {
    this.#next = null;
    const endMs = performance.now() + this.#options.turnMs;
    for (const guest of this.#waiting) {
      if (performance.now() >= endMs) {
        this.#next = setImmediate(() => this.#serve());
        return;
      }
      this.#waiting.delete(guest);
      if (this.#guests.delete(guest.socket)) guest.enter();
    }
  }
}

function ignore(): void {}
