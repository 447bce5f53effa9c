import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  AGAIN,
  type Connection,
  type ConnectionHandler,
  EOF,
  EpollReactor,
  type IoErrorCode,
  type IoLog,
  type ReactorOptions,
} from '../../mesh/io/index.js';

/** A reactor that shares its thread with Node's loop, so that node:net and node:tls can be its peers. */
export class TestReactor implements Disposable {
  readonly reactor: EpollReactor;
  /** What was logged. */
  readonly logged: string[] = [];

  constructor(options: ReactorOptions = {}) {
    const note: IoLog['warn'] = (_data, message) => void this.logged.push(message);
    this.reactor = new EpollReactor(options, { log: { warn: note, error: note } });
  }

  /** Turns until `done` holds; throws after `timeoutMs`. */
  async until(done: () => boolean, what = 'the condition', timeoutMs = 20_000): Promise<void> {
    const end = Date.now() + timeoutMs;
    while (!done()) {
      if (Date.now() > end) throw new Error(`timed out waiting for ${what}`);
      this.reactor.turn(0);
      await nextTurn();
      if (!done()) this.reactor.turn(1);
    }
  }

  /** Turns while waiting for what a peer in this thread does. */
  async during<T>(promise: Promise<T>, timeoutMs = 20_000): Promise<T> {
    let isSettled = false;
    const settle = () => {
      isSettled = true;
    };
    promise.then(settle, settle);
    await this.until(() => isSettled, 'a promise', timeoutMs);
    return promise;
  }

  /** Turns for a while. */
  async for(ms: number): Promise<void> {
    const end = Date.now() + ms;
    await this.until(() => Date.now() >= end, 'time to pass', ms + 20_000);
  }

  [Symbol.dispose](): void {
    this.reactor.dispose();
  }
}

/** Handler that keeps everything it hears and reads all that comes. */
export class Recorder implements ConnectionHandler {
  readonly events: string[] = [];
  received: Buffer = Buffer.alloc(0);
  error: (Error & { code: IoErrorCode }) | null = null;
  connection: Connection | null = null;
  readonly #reactor: EpollReactor;

  constructor(reactor: EpollReactor) {
    this.#reactor = reactor;
  }

  get isConnected(): boolean {
    return this.events.includes('connected');
  }

  get hasEnded(): boolean {
    return this.events.includes('end');
  }

  get isClosed(): boolean {
    return this.error !== null;
  }

  onConnected(connection: Connection): void {
    this.connection = connection;
    this.events.push('connected');
  }

  onReadable(connection: Connection): void {
    const buffer = this.#reactor.receiveBuffer;
    const count = connection.read(buffer, 0, buffer.length);
    if (count > 0) {
      this.received = Buffer.concat([this.received, buffer.subarray(0, count)]);
      this.onBytes(connection, buffer, count);
    } else if (count === EOF) {
      this.events.push('end');
      this.onEnd(connection);
    } else if (count !== AGAIN) this.events.push('failed');
  }

  /** For tests that answer. */
  onBytes(_connection: Connection, _bytes: Buffer, _count: number): void {}

  onEnd(_connection: Connection): void {}

  onDrained(_connection: Connection): void {
    this.events.push('drained');
  }

  onClosed(_connection: Connection, error: Error & { code: IoErrorCode }): void {
    this.events.push(`closed ${error.code}`);
    this.error = error;
  }
}

/** A recorder that sends back what it gets, ends when its peer ends, and then closes. */
export class Echo extends Recorder {
  override onBytes(connection: Connection, bytes: Buffer, count: number): void {
    connection.write(bytes, 0, count);
  }

  override onEnd(connection: Connection): void {
    connection.close();
  }
}
