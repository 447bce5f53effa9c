import { ConnectionError } from './errors.js';
import type { SessionLimits } from './session-limits.js';
import { ErrorCode } from './types.js';

/** A token bucket. */
class Budget {
  private readonly what: string;
  private readonly burst: number;
  private readonly perMs: number;
  private tokens: number;
  private filledAtMs: number;

  constructor(what: string, burst: number, perSecond: number, nowMs: number) {
    this.what = what;
    this.burst = burst;
    this.perMs = perSecond / 1000;
    this.tokens = burst;
    this.filledAtMs = nowMs;
  }

  /** Throws the connection error when there is nothing left. */
  spend(nowMs: number): void {
    if (this.tokens < 1) this.refill(nowMs);
    if (this.tokens < 1) throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, `too many ${this.what}`);
    this.tokens--;
  }

  earn(tokens: number): void {
    this.tokens = Math.min(this.burst, this.tokens + tokens);
  }

  private refill(nowMs: number): void {
    this.tokens = Math.min(this.burst, this.tokens + (nowMs - this.filledAtMs) * this.perMs);
    this.filledAtMs = nowMs;
  }
}

/** The token buckets of one session; every `spend` may throw the connection error that ends it. */
export class FloodGuard {
  readonly prematureResets: Budget;
  readonly streamErrors: Budget;
  readonly refusedStreams: Budget;
  readonly settingsFrames: Budget;
  readonly pingFrames: Budget;
  readonly emptyDataFrames: Budget;
  readonly windowUpdates: Budget;
  readonly ignoredFrames: Budget;
  private readonly windowUpdatesPerDataFrame: number;

  constructor(limits: SessionLimits, nowMs: number) {
    const budget = (what: string, burst: number, perSecond: number) =>
      new Budget(what, burst, perSecond, nowMs);
    this.prematureResets = budget(
      'resets before a response',
      limits.prematureResetsBurst,
      limits.prematureResetsPerSecond,
    );
    this.streamErrors = budget('stream errors', limits.streamErrorsBurst, limits.streamErrorsPerSecond);
    this.refusedStreams = budget(
      'refused streams',
      limits.refusedStreamsBurst,
      limits.refusedStreamsPerSecond,
    );
    this.settingsFrames = budget(
      'SETTINGS frames',
      limits.settingsFramesBurst,
      limits.settingsFramesPerSecond,
    );
    this.pingFrames = budget('PING frames', limits.pingFramesBurst, limits.pingFramesPerSecond);
    this.emptyDataFrames = budget(
      'empty DATA frames',
      limits.emptyDataFramesBurst,
      limits.emptyDataFramesPerSecond,
    );
    this.windowUpdates = budget(
      'WINDOW_UPDATE frames',
      limits.windowUpdatesBurst,
      limits.windowUpdatesPerSecond,
    );
    this.ignoredFrames = budget(
      'frames without effect',
      limits.ignoredFramesBurst,
      limits.ignoredFramesPerSecond,
    );
    this.windowUpdatesPerDataFrame = limits.windowUpdatesPerDataFrame;
  }

  /** We sent a DATA frame that the peer's window had not cut short. */
  earnWindowUpdates(): void {
    this.windowUpdates.earn(this.windowUpdatesPerDataFrame);
  }
}
