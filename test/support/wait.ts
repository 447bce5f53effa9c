import { waitFor } from '../lab/wait.js';

const patience = { timeoutMs: 20_000, intervalMs: 5 };

/** Resolves once `check` (mostly: expectations) does not throw any more. */
export async function eventually(check: () => void | Promise<void>): Promise<void> {
  const passes = async () => {
    await check();
    return true;
  };
  await waitFor('this check to pass', passes, patience);
}

/** Resolves once `condition` is true. */
export async function until(condition: () => boolean): Promise<void> {
  await waitFor(`${condition}`, condition, patience);
}
