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
