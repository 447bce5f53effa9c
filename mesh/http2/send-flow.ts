import { ConnectionError } from './errors.js';
import { ErrorCode, type Output } from './types.js';
import { DEFAULT_WINDOW_BYTES, MAX_WINDOW_BYTES, MIN_MAX_FRAME_BYTES } from './wire/frame.js';

/** A stream as the sender of DATA. */
export interface Sender {
  /** What the peer grants on the stream; negative after it lowered INITIAL_WINDOW_SIZE. */
  sendWindowBytes: number;
  /** It asked for capacity and there was none: wants `writable`. */
  isWaiting: boolean;
  /** It stands in the queue. */
  isQueued: boolean;
  readonly canSend: boolean;
  writable(): void;
}

/**
 * Send windows of one session (RFC 9113 section 5.2). Streams that found no capacity wait: for their own window (by flag only), or for the
 * connection's window or the output, in a queue that is served round robin: whoever is still hungry after its turn goes to the end.
 */
export class SendFlow {
  private readonly output: Output;
  private readonly maxSendFrameBytes: number;
  private connectionWindow = DEFAULT_WINDOW_BYTES;
  private frameBytes: number;
  private readonly queue: Sender[] = [];
  private isServing = false;

  constructor(options: { readonly maxSendFrameBytes: number }, deps: { readonly output: Output }) {
    this.output = deps.output;
    this.maxSendFrameBytes = options.maxSendFrameBytes;
    this.frameBytes = Math.min(MIN_MAX_FRAME_BYTES, options.maxSendFrameBytes);
  }

  /** The peer's SETTINGS_MAX_FRAME_SIZE. */
  setPeerFrameBytes(bytes: number): void {
    this.frameBytes = Math.min(bytes, this.maxSendFrameBytes);
  }

  /** Payload bytes that `sender` may put into a DATA frame now. */
  limit(sender: Sender): number {
    if (this.output.blocked) return 0;
    return Math.max(0, Math.min(this.frameBytes, this.connectionWindow, sender.sendWindowBytes));
  }

  /** As `limit`; a sender that gets 0 will hear `writable`. */
  capacity(sender: Sender): number {
    const bytes = this.limit(sender);
    if (bytes === 0) {
      sender.isWaiting = true;
      if (sender.sendWindowBytes > 0) this.enqueue(sender);
    }
    return bytes;
  }

  spend(sender: Sender, bytes: number): void {
    this.connectionWindow -= bytes;
    sender.sendWindowBytes -= bytes;
  }

  /** WINDOW_UPDATE for the connection. */
  openConnection(increment: number): void {
    this.connectionWindow += increment;
    if (this.connectionWindow > MAX_WINDOW_BYTES) {
      throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'connection window above 2^31-1');
    }
    this.serve();
  }

  /** WINDOW_UPDATE for a stream, or a new initial window. False: the window exceeds 2^31-1. Call `serve` after it. */
  openStream(sender: Sender, delta: number): boolean {
    sender.sendWindowBytes += delta;
    if (sender.isWaiting && sender.sendWindowBytes > 0) this.enqueue(sender);
    return sender.sendWindowBytes <= MAX_WINDOW_BYTES;
  }

  /** `sender` is closed. It must not lie in the queue: a peer that opens no window would have it grow with every stream that it resets. */
  leave(sender: Sender): void {
    if (!sender.isQueued) return;
    sender.isQueued = false;
    this.queue.splice(this.queue.indexOf(sender), 1);
  }

  /** Streams in the queue. */
  get waiting(): number {
    return this.queue.length;
  }

  /** Gives each waiting stream its turn while there is capacity. */
  serve(): void {
    if (this.isServing) return;
    this.isServing = true;
    try {
      for (let turns = this.queue.length; turns > 0 && this.isOpen; turns--) this.serveNext();
    } finally {
      this.isServing = false;
    }
  }

  private get isOpen(): boolean {
    return this.connectionWindow > 0 && !this.output.blocked;
  }

  private serveNext(): void {
    const sender = this.queue.shift();
    // one whose turn it was has reset others
    if (sender === undefined) return;
    sender.isQueued = false;
    if (!sender.isWaiting || !sender.canSend || sender.sendWindowBytes <= 0) return;
    sender.isWaiting = false;
    sender.writable();
  }

  private enqueue(sender: Sender): void {
    if (sender.isQueued) return;
    sender.isQueued = true;
    this.queue.push(sender);
  }
}
