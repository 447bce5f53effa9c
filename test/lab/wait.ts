import { setTimeout as delay } from 'node:timers/promises';

export interface WaitOptions {
  /** Milliseconds; generous by default, because the machine may be busy. */
  readonly timeoutMs?: number;
  readonly intervalMs?: number;
}

/**
 * Asks `probe` again and again until it gives something other than undefined, null or false, and returns that.
 * What `probe` throws counts as "not yet" and is the cause of the error thrown at the deadline. `what` names the state waited for.
 */
export async function waitFor<T>(
  what: string,
  probe: () => T | Promise<T>,
  options: WaitOptions = {},
): Promise<NonNullable<T>> {
  const timeoutMs = options.timeoutMs ?? 15_000;
  const deadline = performance.now() + timeoutMs;
  let cause: unknown;
  do {
    try {
      const value = await probe();
      if (value !== undefined && value !== null && value !== false) return value;
      cause = undefined;
    } catch (thrown) {
      cause = thrown;
    }
    await delay(options.intervalMs ?? 25);
  } while (performance.now() < deadline);
  throw new Error(`waited ${timeoutMs} ms in vain for: ${what}`, { cause });
}
