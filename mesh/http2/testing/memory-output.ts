import type { Output, Slab } from '../types.js';

const SLAB_BYTES = 256 * 1024;

/** An output in memory, for tests: what was written is taken by `take`. `blocked` is the test's to set. */
export class MemoryOutput implements Output {
  blocked = false;
  private slab: Slab = { bytes: Buffer.alloc(SLAB_BYTES), end: 0 };
  private sealed: Buffer[] = [];

  reserve(bytes: number): Slab {
    if (this.slab.end + bytes > this.slab.bytes.length) this.seal();
    if (bytes > this.slab.bytes.length) throw new RangeError(`reserve(${bytes})`);
    return this.slab;
  }

  get pendingBytes(): number {
    return this.slab.end + this.sealed.reduce((sum, part) => sum + part.length, 0);
  }

  take(): Buffer {
    this.seal();
    const all = Buffer.concat(this.sealed);
    this.sealed = [];
    return all;
  }

  private seal(): void {
    if (this.slab.end === 0) return;
    this.sealed.push(Buffer.from(this.slab.bytes.subarray(0, this.slab.end)));
    this.slab.end = 0;
  }
}
