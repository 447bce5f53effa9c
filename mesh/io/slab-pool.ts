import type { Slab } from './types.js';

/** The most that one `reserve` may ask for: a DATA frame of 64 KiB with room for control frames. */
export const MAX_RESERVE_BYTES = 144 * 1024;
const SMALL_BYTES = 16 * 1024;
const KEPT_SMALL = 256;
const KEPT_LARGE = 16;

/**
 * Lends slabs for the length of a turn. Most turns write little to a connection, so the first slab is small; a connection that needs
 * more changes it for a large one. Free slabs are kept up to a limit (4 MiB small, 2.3 MiB large), the rest is left to the collector.
 */
export class SlabPool {
  readonly #small: Slab[] = [];
  readonly #large: Slab[] = [];
  readonly #sink: Slab = newSlab(MAX_RESERVE_BYTES);

  /** An empty slab with at least `bytes` of room. Throws RangeError above MAX_RESERVE_BYTES. */
  borrow(bytes: number): Slab {
    if (bytes <= SMALL_BYTES) return this.#small.pop() ?? newSlab(SMALL_BYTES);
    checkReserve(bytes);
    return this.#large.pop() ?? newSlab(MAX_RESERVE_BYTES);
  }

  giveBack(slab: Slab): void {
    slab.end = 0;
    const isSmall = slab.bytes.length === SMALL_BYTES;
    const free = isSmall ? this.#small : this.#large;
    if (free.length < (isSmall ? KEPT_SMALL : KEPT_LARGE)) free.push(slab);
  }

  /** Where a connection that is closed has its owner write to: nobody reads it. */
  sink(bytes: number): Slab {
    checkReserve(bytes);
    this.#sink.end = 0;
    return this.#sink;
  }
}

function checkReserve(bytes: number): void {
  if (bytes > MAX_RESERVE_BYTES)
    throw new RangeError(`reserve(${bytes}): at most ${MAX_RESERVE_BYTES} bytes`);
}

/** Not from Node's shared pool, and not zeroed: pages that nobody writes cost nothing. */
function newSlab(bytes: number): Slab {
  return { bytes: Buffer.allocUnsafeSlow(bytes), end: 0 };
}
