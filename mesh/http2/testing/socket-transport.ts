import type { Duplex } from 'node:stream';
import { createSession } from '../session.js';
import type { Session, SessionHandler, SessionOptions } from '../types.js';
import { MemoryOutput } from './memory-output.js';

/** Runs a session over a Node stream (socket, TLS socket, or one end of a pair), with the stream's own back-pressure. For tests. */
export class SocketTransport {
  readonly session: Session;
  readonly output = new MemoryOutput();
  private readonly socket: Duplex;
  private isFlushing = false;

  constructor(socket: Duplex, options: SessionOptions, handler: SessionHandler) {
    this.socket = socket;
    this.session = createSession(options, { output: this.output, handler, nowMs: () => performance.now() });
    socket.on('data', (chunk: Buffer) => {
      this.session.receive(chunk, 0, chunk.length);
      this.flush();
    });
    socket.on('drain', () => {
      this.output.blocked = false;
      this.session.outputDrained();
      this.flush();
    });
    socket.on('error', () => this.session.transportClosed());
    socket.on('close', () => this.session.transportClosed());
    this.flush();
  }

  /** Writes out what the session has produced. To be called after using the session outside of its callbacks. */
  flush(): void {
    if (this.isFlushing) return;
    this.isFlushing = true;
    const bytes = this.output.take();
    this.isFlushing = false;
    if (bytes.length > 0 && !this.socket.write(bytes)) this.output.blocked = true;
  }

  /** Does something with the session, then flushes. */
  run<T>(action: (session: Session) => T): T {
    const result = action(this.session);
    this.flush();
    return result;
  }
}
