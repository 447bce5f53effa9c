/** Whoever has something to send: `flush` sends what is due now, and tells of it by `Outbox.sent`. */
export interface Sender {
  flush(): void;
  /** Its client takes what it was sent so slowly that it stands in others' way: to be cut off. */
  tooSlow(): void;
}

export interface OutboxOptions {
  /** Bytes under way (handed to gRPC, not taken by the connection yet) above which nobody begins. gRPC copies what it sends for each client. */
  readonly maxBytes: number;
  /** What is under way for so long has stalled, and stands in nobody's way any more, */
  readonly stallMs: number;
  /** as long as there is no more of it than this. */
  readonly maxStalledBytes: number;
  /** Where there is, the oldest are cut off that were sent so long ago (milliseconds), if so much has arrived since that it is not everybody who is slow; */
  readonly cutMs: number;
  readonly cutOvertaken: number;
  /** after so long, in any case. */
  readonly cutAlwaysMs: number;
  /** Longest that senders are served without a pause, milliseconds. */
  readonly turnMs: number;
}

export const OUTBOX_DEFAULTS: OutboxOptions = {
  maxBytes: 32 << 20,
  stallMs: 1_000,
  maxStalledBytes: 64 << 20,
  cutMs: 10_000,
  cutOvertaken: 100,
  cutAlwaysMs: 30_000,
  turnMs: 10,
};

/** How often room for what has stalled is looked for. */
const RETRY_MS = 100;

/** Something that was sent. */
export interface Parcel {
  /** The connection has taken it, or is gone. Idempotent. */
  done(): void;
}

interface UnderWay extends Parcel {
  readonly sender: Sender;
  readonly bytes: number;
  readonly sinceMs: number;
  /** Parcels that had arrived before. */
  readonly arrivedBefore: number;
}

/** Who sends next: one after another in the order in which they came, a bounded number of bytes at once, in short turns. A client that does not read costs its own bytes, and nobody else's time. */
export class Outbox {
  readonly #options: OutboxOptions;
  readonly #waiting = new Set<Sender>();
  /** Oldest first. */
  readonly #moving = new Set<UnderWay>();
  readonly #stalled = new Set<UnderWay>();
  #movingBytes = 0;
  #stalledBytes = 0;
  #arrived = 0;
  #next: NodeJS.Immediate | null = null;
  #timer: NodeJS.Timeout | null = null;
  #isServing = false;

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /** Senders that wait for their turn. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Bytes under way. */
  get bytes(): number {
    return this.#movingBytes + this.#stalledBytes;
  }

  /** The sender has something to send; at once, where there is room. */
  schedule(sender: Sender): void {
    this.#waiting.add(sender);
    if (this.#next === null) this.#serve();
  }

  /** It has nothing to send any more. */
  forget(sender: Sender): void {
    this.#waiting.delete(sender);
  }

  /** So much was sent; its `done` is awaited. */
  sent(sender: Sender, bytes: number): Parcel {
    const parcel: UnderWay = {
      sender,
      bytes,
      sinceMs: performance.now(),
      arrivedBefore: this.#arrived,
      done: () => this.#done(parcel),
    };
    this.#moving.add(parcel);
    this.#movingBytes += bytes;
    this.#timer ??= setTimeout(() => this.#lookForStalled(), this.#options.stallMs);
    return parcel;
  }

  close(): void {
    if (this.#next !== null) clearImmediate(this.#next);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#next = null;
    this.#timer = null;
    this.#waiting.clear();
  }

  #serve(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    const endMs = performance.now() + this.#options.turnMs;
    for (const sender of this.#waiting) {
      if (this.#movingBytes >= this.#options.maxBytes) break; // a parcel's end goes on
      if (performance.now() >= endMs) {
        this.#serveSoon();
        break;
      }
      this.#waiting.delete(sender);
      sender.flush();
    }
    this.#isServing = false;
  }

  #serveSoon(): void {
    this.#next ??= setImmediate(() => {
      this.#next = null;
      this.#serve();
    });
  }

  #done(parcel: UnderWay): void {
    if (this.#moving.delete(parcel)) this.#movingBytes -= parcel.bytes;
    else if (this.#stalled.delete(parcel)) this.#stalledBytes -= parcel.bytes;
    else return;
    this.#arrived++;
    if (this.#waiting.size > 0 && this.#movingBytes < this.#options.maxBytes) this.#serveSoon();
  }

  #lookForStalled(): void {
    const nowMs = performance.now();
    this.#timer = null;
    for (const parcel of this.#moving) {
      const leftMs = parcel.sinceMs + this.#options.stallMs - nowMs;
      if (leftMs <= 0 && this.#hasRoomForStalled(parcel, nowMs)) {
        this.#moving.delete(parcel);
        this.#movingBytes -= parcel.bytes;
        this.#stalled.add(parcel);
        this.#stalledBytes += parcel.bytes;
        continue;
      }
      this.#timer = setTimeout(() => this.#lookForStalled(), Math.max(leftMs, RETRY_MS));
      break;
    }
    if (this.#waiting.size > 0) this.#serveSoon();
  }

  #hasRoomForStalled({ bytes }: UnderWay, nowMs: number): boolean {
    for (const oldest of this.#stalled) {
      if (this.#stalledBytes + bytes <= this.#options.maxStalledBytes) break;
      if (!this.#mayBeCut(oldest, nowMs)) return false;
      this.#done(oldest);
      oldest.sender.tooSlow();
    }
    return true;
  }

  #mayBeCut({ sinceMs, arrivedBefore }: UnderWay, nowMs: number): boolean {
    const { cutMs, cutOvertaken, cutAlwaysMs } = this.#options;
    const ageMs = nowMs - sinceMs;
    return ageMs > cutAlwaysMs || (ageMs > cutMs && this.#arrived - arrivedBefore >= cutOvertaken);
  }
}
