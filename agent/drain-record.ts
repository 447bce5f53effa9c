import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Log } from '../mesh/log/index.js';
import type { DrainCounts } from './tunnel/index.js';

/**
 * What all agents of this node have drained since it was started, in a file of the run folder, a line an agent: nobody scrapes an agent
 * between its deadline and its end, so the one that follows it tells.
 */
export class DrainRecord {
  readonly #file: string;
  readonly #own: () => DrainCounts;
  readonly #log: Log;
  #isWritten = false;

  /** `own`: what this agent has drained so far. */
  constructor(
    options: { readonly runDir: string },
    deps: { readonly own: () => DrainCounts; readonly log: Log },
  ) {
    this.#file = join(options.runDir, 'drained');
    this.#own = deps.own;
    this.#log = deps.log;
  }

  /** Once, at the end of our own drain. */
  write(): void {
    const { ended, reset } = this.#own();
    try {
      if (ended + reset > 0) appendFileSync(this.#file, `${ended} ${reset}\n`, { mode: 0o600 });
      this.#isWritten = true;
    } catch (error) {
      this.#log.warn({ err: error }, 'what was drained cannot be written down for the next agent');
    }
  }

  /** Of all agents, this one included. A file that cannot be read counts for nothing. */
  get total(): DrainCounts {
    let { ended, reset } = this.#isWritten ? { ended: 0, reset: 0 } : this.#own();
    for (const [, fin, rst] of textOf(this.#file).matchAll(/^(\d{1,15}) (\d{1,15})$/gm)) {
      ended += Number(fin);
      reset += Number(rst);
    }
    return { ended, reset };
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
