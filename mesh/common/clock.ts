/** Time as rooms get it given, so that tests can own it. */
export interface Clock {
  /** Unix milliseconds. */
  nowMs(): number;
  /** Runs `callback` once after `delayMs` (any length; at once if not positive); returns how to cancel. Does not keep the process alive. */
  setTimer(delayMs: number, callback: () => void): () => void;
}

/** Above this, Node's timers fire at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  setTimer: (delayMs, callback) => {
    let leftMs = delayMs;
    let timer = arm();
    function arm(): NodeJS.Timeout {
      const stepMs = Math.min(Math.max(leftMs, 0), MAX_TIMEOUT_MS);
      leftMs -= stepMs;
      return setTimeout(() => {
        if (leftMs > 0) timer = arm();
        else callback();
      }, stepMs).unref();
    }
    return () => clearTimeout(timer);
  },
};

/** How long a jump of the wall clock may go unseen. */
const LOOK_MS = 30_000;

/** Runs `callback` once when the wall clock reads `atMs` (Unix), also where it jumps there or back; returns how to cancel. */
export function atWallTime(clock: Clock, atMs: number, callback: () => void): () => void {
  let cancel = (): void => {};
  const arm = (leftMs: number): void => {
    cancel = clock.setTimer(Math.max(0, Math.min(leftMs, LOOK_MS)), () => {
      const stillMs = atMs - clock.nowMs();
      if (stillMs <= 0) callback();
      else arm(stillMs);
    });
  };
  arm(atMs - clock.nowMs());
  return () => cancel();
}
