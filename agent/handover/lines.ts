import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** What the two agents say to each other; descriptors go another way. */
export type Message =
  | {
      readonly kind: 'take';
      readonly version: 1;
      readonly node: string;
      readonly bpffs: string;
      readonly path: string;
    }
  | { readonly kind: 'busy' }
  | { readonly kind: 'refused'; readonly reason: string }
  /** One pod, whose sockets were sent just now in as many messages as there are kinds. */
  | {
      readonly kind: 'pod';
      readonly uid: string;
      readonly netnsCookie: string;
      readonly hasCertificate: boolean;
      readonly socketKinds: readonly string[];
    }
  | { readonly kind: 'got' }
  | { readonly kind: 'all' }
  | { readonly kind: 'ready' }
  | { readonly kind: 'yours' };

/** One JSON object per line, both ways. Both ends are agents of one machine and run as root. */
export class Lines {
  readonly #socket: Socket;
  readonly #messages: AsyncIterator<string>;

  constructor(socket: Socket) {
    this.#socket = socket.on('error', () => {});
    const reader = createInterface({ input: socket });
    this.#messages = reader[Symbol.asyncIterator]();
    // A destroyed socket has no 'end'.
    socket.once('close', () => reader.close());
  }

  send(message: Message): void {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Null: the other side has closed, or has said nothing for `timeoutMs` (and is closed then). */
  async next(timeoutMs: number): Promise<Message | null> {
    const timer = setTimeout(() => this.close(), timeoutMs);
    try {
      const { value, done } = await this.#messages.next();
      return done === true ? null : (JSON.parse(value) as Message);
    } catch {
      return null;
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#socket.destroy();
  }
}
