import { DEFAULT_WINDOW_BYTES } from './wire/frame.js';

/** What we grant the peer on one stream. Every byte of `sizeBytes` is in one of three places: still the peer's, waiting for the reader, or to be returned. */
export interface StreamWindow {
  sizeBytes: number;
  /** What the peer may still send; negative never by its doing. */
  creditBytes: number;
  /** Given to the reader, which has not said `consumed`. */
  unconsumedBytes: number;
  /** Consumed, not yet returned by WINDOW_UPDATE. */
  toReturnBytes: number;
  grantedAtMs: number;
}

export interface FlowOptions {
  readonly initialStreamWindowBytes: number;
  readonly maxStreamWindowBytes: number;
  readonly connectionWindowBytes: number;
}

/** Half a window used up within this many round trips: the window, not the reader, is what holds the peer back. */
const FAST_ROUND_TRIPS = 2;
/** One tick of the coarse clock, added to every round trip. */
const CLOCK_TICK_MS = 1;
/** A reader this much slower than `FAST_ROUND_TRIPS` gives half of its grown window back, for others to grow. */
const SLOW_FACTOR = 16;

/**
 * Receive windows of one session (RFC 9113 section 5.2). The connection's credit is returned on receipt, in halves: a stalled stream holds up
 * nobody. A stream's credit is returned when its reader is done, and its window doubles while the reader leaves nothing lying and uses up half
 * of it within two round trips, as long as all granted windows together stay within the connection's. So the memory behind a session is
 * bounded by `connectionWindowBytes` (or by streams × initial window, if that is more).
 */
export class ReceiveFlow {
  private readonly options: FlowOptions;
  private connectionCredit: number;
  private connectionToReturn = 0;
  private granted = 0;
  private roundTripMs = -1;
  /** Window of a new stream by the SETTINGS that the peer has acknowledged. */
  private initialBytes = DEFAULT_WINDOW_BYTES;

  constructor(options: FlowOptions) {
    this.options = options;
    this.connectionCredit = Math.max(options.connectionWindowBytes, DEFAULT_WINDOW_BYTES);
  }

  /** WINDOW_UPDATE to send for the connection at the start, or 0. */
  get openingIncrement(): number {
    return this.connectionCredit - DEFAULT_WINDOW_BYTES;
  }

  /** Sum of all open streams' window sizes. */
  get grantedBytes(): number {
    return this.granted;
  }

  observeRoundTrip(ms: number): void {
    this.roundTripMs = this.roundTripMs < 0 ? ms : this.roundTripMs + (ms - this.roundTripMs) / 4;
  }

  openStream(nowMs: number): StreamWindow {
    this.granted += this.initialBytes;
    return {
      sizeBytes: this.initialBytes,
      creditBytes: this.initialBytes,
      unconsumedBytes: 0,
      toReturnBytes: 0,
      grantedAtMs: nowMs,
    };
  }

  closeStream(window: StreamWindow): void {
    this.granted -= window.sizeBytes;
    window.sizeBytes = 0;
  }

  /** The peer acknowledged our SETTINGS: its windows moved by what INITIAL_WINDOW_SIZE changed (section 6.9.2). */
  acknowledgeInitialWindow(windows: Iterable<StreamWindow>): void {
    const delta = this.options.initialStreamWindowBytes - this.initialBytes;
    this.initialBytes = this.options.initialStreamWindowBytes;
    if (delta === 0) return;
    for (const window of windows) {
      window.sizeBytes += delta;
      window.creditBytes += delta;
      this.granted += delta;
    }
  }

  /** A DATA frame of `bytes`, padding included, begins. False: the peer overran the connection's window. */
  takeConnectionCredit(bytes: number): boolean {
    this.connectionCredit -= bytes;
    this.connectionToReturn += bytes;
    return this.connectionCredit >= 0;
  }

  /** The WINDOW_UPDATE due for the connection now, or 0. */
  returnConnectionCredit(): number {
    if (this.connectionToReturn * 2 < this.options.connectionWindowBytes) return 0;
    const increment = this.connectionToReturn;
    this.connectionToReturn = 0;
    this.connectionCredit += increment;
    return increment;
  }

  /** The reader is done with `bytes`. True: half of the window or more is to be returned, call `grant`. */
  consumed(window: StreamWindow, bytes: number): boolean {
    window.unconsumedBytes = Math.max(0, window.unconsumedBytes - bytes);
    window.toReturnBytes += bytes;
    return window.toReturnBytes * 2 >= window.sizeBytes;
  }

  /** Returns what was consumed, and more or less where the window grows or shrinks: the WINDOW_UPDATE to send. */
  grant(window: StreamWindow, nowMs: number): number {
    const resized = this.resize(window, nowMs);
    const increment = window.toReturnBytes + resized;
    window.sizeBytes += resized;
    this.granted += resized;
    window.toReturnBytes = 0;
    window.creditBytes += increment;
    window.grantedAtMs = nowMs;
    return increment;
  }

  /** By how much the window should grow, or shrink (by half of what is to be returned). */
  private resize(window: StreamWindow, nowMs: number): number {
    const fastMs = FAST_ROUND_TRIPS * (Math.max(0, this.roundTripMs) + CLOCK_TICK_MS);
    const tookMs = nowMs - window.grantedAtMs;
    if (tookMs <= fastMs && window.unconsumedBytes === 0) {
      // half of what is left at most, so that a stream that comes later finds something
      const free = (this.options.connectionWindowBytes - this.granted) >> 1;
      return Math.max(
        0,
        Math.min(window.sizeBytes, this.options.maxStreamWindowBytes - window.sizeBytes, free),
      );
    }
    if (tookMs <= fastMs * SLOW_FACTOR) return 0;
    const surplus = window.sizeBytes - this.initialBytes;
    return -Math.max(0, Math.min(surplus, window.toReturnBytes >> 1));
  }
}
