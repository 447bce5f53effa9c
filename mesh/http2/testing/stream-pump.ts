import { createHash } from 'node:crypto';
import type { ErrorCode, HeaderList, Stream, StreamHandler } from '../types.js';

/** Sends back what comes, each direction's end with its own; consumes only what it could send on. For tests. */
export class Echo implements StreamHandler {
  private readonly queue: Buffer[] = [];
  private ended = false;
  trailers: HeaderList | null = null;
  mostQueuedBytes = 0;
  private queuedBytes = 0;
  resetCode: ErrorCode | null = null;

  onHeaders(_stream: Stream, headers: HeaderList): void {
    this.trailers = headers;
  }
  onData(stream: Stream, bytes: Buffer, start: number, end: number): void {
    this.queue.push(Buffer.from(bytes.subarray(start, end)));
    this.queuedBytes += end - start;
    this.mostQueuedBytes = Math.max(this.mostQueuedBytes, this.queuedBytes);
    this.onWritable(stream);
  }
  onEnd(stream: Stream): void {
    this.ended = true;
    this.onWritable(stream);
  }
  onReset(_stream: Stream, code: ErrorCode): void {
    this.resetCode = code;
  }
  onWritable(stream: Stream): void {
    while (this.queue.length > 0) {
      const head = this.queue[0]!;
      const sent = stream.sendData(head, 0, head.length, false);
      if (sent === 0) return;
      this.queuedBytes -= sent;
      stream.consumed(sent);
      if (sent === head.length) this.queue.shift();
      else this.queue[0] = head.subarray(sent);
    }
    if (!this.ended) return;
    if (this.trailers === null) stream.endStream();
    else stream.sendHeaders(this.trailers, true);
  }
}

/** Sends `bytes` of a pattern and keeps what comes back: headers, a hash of the body, the end or the reset. For tests. */
export class Exchange implements StreamHandler {
  readonly headers: HeaderList[] = [];
  receivedBytes = 0;
  readonly done: Promise<'end' | 'reset'>;
  resetCode: ErrorCode | null = null;
  sessionLost = false;
  private settle!: (how: 'end' | 'reset') => void;
  private readonly hash = createHash('sha256');
  private readonly body: Buffer;
  private readonly trailers: HeaderList | null;
  private sent = 0;
  /** Keep what arrives unconsumed. */
  stalled = false;
  unconsumed = 0;

  constructor(body: Buffer, trailers: HeaderList | null = null) {
    this.body = body;
    this.trailers = trailers;
    this.done = new Promise((resolve) => {
      this.settle = resolve;
    });
  }

  get receivedHash(): string {
    return this.hash.copy().digest('hex');
  }
  get bodyHash(): string {
    return createHash('sha256').update(this.body).digest('hex');
  }
  status(): string | undefined {
    return this.headers[0]?.find(([name]) => name === ':status')?.[1];
  }
  onHeaders(_stream: Stream, headers: HeaderList): void {
    this.headers.push(headers);
  }
  onData(stream: Stream, bytes: Buffer, start: number, end: number): void {
    this.hash.update(bytes.subarray(start, end));
    this.receivedBytes += end - start;
    if (this.stalled) this.unconsumed += end - start;
    else stream.consumed(end - start);
  }
  onEnd(): void {
    this.settle('end');
  }
  onReset(_stream: Stream, code: ErrorCode, sessionLost: boolean): void {
    this.resetCode = code;
    this.sessionLost = sessionLost;
    this.settle('reset');
  }
  onWritable(stream: Stream): void {
    while (this.sent < this.body.length) {
      const sent = stream.sendData(this.body, this.sent, this.body.length, false);
      if (sent === 0) return;
      this.sent += sent;
    }
    if (this.trailers === null) stream.endStream();
    else stream.sendHeaders(this.trailers, true);
  }
}
