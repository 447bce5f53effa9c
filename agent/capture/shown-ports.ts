/**
 * Which caller addresses and ports are shown to applications right now, over all workers: an application must never see two live
 * connections of one caller with one port. A table in shared memory, without locks: a claim is written into a free slot first and looked
 * for second, and gives way if it finds its like, so of two workers that claim one port at once at most one gets it.
 */

/** Slots searched for one claim. */
const bucketSlots = 8;
const hashSeed = 0x811c9dc5;
const fnvPrime = 0x01000193;
const ownerBits = 7;
const maxOwner = (1 << ownerBits) - 1;

/** Shared memory for `connections` live connections of all workers: 8 bytes each, touched as they come. Plain data, crosses to workers as it is. */
export function createShownPorts(connections: number): SharedArrayBuffer {
  const buckets = 2 ** Math.ceil(Math.log2(Math.max(64, (connections * 2) / bucketSlots)));
  return new SharedArrayBuffer(buckets * bucketSlots * 4);
}

export class ShownPorts {
  readonly #slots: Int32Array;
  readonly #bucketMask: number;
  readonly #owner: number;

  /** `owner`: index of the worker, 0 to 126. */
  constructor(memory: SharedArrayBuffer, owner: number) {
    if (owner < 0 || owner >= maxOwner)
      throw new RangeError(`a worker's index is 0 to ${maxOwner - 1}, not ${owner}`);
    this.#slots = new Int32Array(memory);
    this.#bucketMask = this.#slots.length / bucketSlots - 1;
    this.#owner = owner + 1;
  }

  /**
   * Claims `port` as shown to whoever `scope` is (one pod's destination seen by one caller address: a hash made with `hashText`). The claim's
   * number, for `release`; -1 where it is taken, or its bucket is full: another port will do.
   */
  claim(scope: number, port: number): number {
    const hash = mix(Math.imul(scope ^ port, fnvPrime));
    const base = (hash & this.#bucketMask) * bucketSlots;
    // The bits that chose the bucket tell nothing inside it: the fingerprint is of a second hash.
    const fingerprint = mix(hash ^ 0x5bd1e995) >>> ownerBits;
    const value = (fingerprint << ownerBits) | this.#owner;
    if (this.#finds(base, fingerprint, -1)) return -1;
    for (let slot = base; slot < base + bucketSlots; slot++) {
      if (this.#slots[slot] !== 0 || Atomics.compareExchange(this.#slots, slot, 0, value) !== 0) continue;
      // Orders the plain reads below after the write above, on arm64 too.
      Atomics.load(this.#slots, slot);
      if (!this.#finds(base, fingerprint, slot)) return slot;
      Atomics.store(this.#slots, slot, 0);
      return -1;
    }
    return -1;
  }

  release(claim: number): void {
    if ((Atomics.load(this.#slots, claim) & maxOwner) === this.#owner) Atomics.store(this.#slots, claim, 0);
  }

  /** For main, when this worker has died and its connections are closed. */
  releaseAll(): void {
    for (let slot = 0; slot < this.#slots.length; slot++) {
      const value = Atomics.load(this.#slots, slot);
      if ((value & maxOwner) === this.#owner) Atomics.compareExchange(this.#slots, slot, value, 0);
    }
  }

  /** Reads plainly: sixteen `Atomics.load`, which V8 does not inline, were 1.2 us of a tunnel. */
  #finds(base: number, fingerprint: number, except: number): boolean {
    for (let slot = base; slot < base + bucketSlots; slot++) {
      if (slot === except) continue;
      const value = this.#slots[slot]!;
      if (value !== 0 && value >>> ownerBits === fingerprint) return true;
    }
    return false;
  }
}

/** FNV-1a over the text's code units, going on from `seed`: the scope's parts one after the other, without a text of them all. */
export function hashText(text: string, seed: number = hashSeed): number {
  let hash = seed;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), fnvPrime);
  return hash;
}

/** As `hashText`, of a 16-bit number. */
export function hashNumber(value: number, seed: number): number {
  return Math.imul(seed ^ (value + 0x10000), fnvPrime);
}

/** The finaliser of MurmurHash3: buckets must not follow consecutive ports. */
function mix(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
