/** Addresses that a ServiceEntry without any gets, one of each family: 240.240.0.0/16 and 2001:2::/48 (mesh-apis.md 2.5). */
export interface AutoVip {
  readonly ipv4: string;
  readonly ipv6: string;
}

/** Last octets 0 and 255 are left out. */
const SLOTS = 256 * 254;
/** Addresses of entries that are gone are kept for them while there are no more than this. */
const MAX_RELEASED = 16_384;

/**
 * Gives each name an address of its own, the same for good: what is added or removed beside it changes nothing, and `saved` carries it over a
 * restart. A name that is new starts at its hash, so that without `saved` nearly all come out the same. The address of a name that is gone
 * stays with it: clients may still have it cached, and it may come back.
 */
export class VipPool {
  /** In the order of use, those released longest ago first among the released. */
  readonly #slots: Map<string, number>;
  readonly #taken: Set<number>;
  readonly #inUse: Set<string>;
  /** Counts changes of what `saved` holds. */
  #version: number;

  /** Slots that do not exist or are there twice are dropped. */
  constructor(saved: Iterable<readonly [string, number]> = []) {
    this.#slots = new Map();
    this.#taken = new Set();
    this.#inUse = new Set();
    this.#version = 0;
    for (const [name, slot] of saved)
      if (Number.isInteger(slot) && slot >= 0 && slot < SLOTS && !this.#taken.has(slot))
        this.#give(name, slot);
  }

  get version(): number {
    return this.#version;
  }

  /** What to make the next pool of. */
  get saved(): Iterable<readonly [string, number]> {
    return this.#slots;
  }

  /** Null: all addresses are in use. */
  take(name: string): AutoVip | null {
    const slot = this.#slots.get(name) ?? this.#newSlot(name);
    if (slot === null) return null;
    this.#inUse.add(name);
    return vipOf(slot);
  }

  release(name: string): void {
    if (!this.#inUse.delete(name)) return;
    const slot = this.#slots.get(name)!;
    this.#slots.delete(name);
    this.#slots.set(name, slot);
    if (this.#slots.size - this.#inUse.size > MAX_RELEASED) this.#dropReleased();
  }

  #newSlot(name: string): number | null {
    if (this.#taken.size === SLOTS) this.#dropReleased();
    if (this.#taken.size === SLOTS) return null;
    let slot = hashOf(name) % SLOTS;
    while (this.#taken.has(slot)) slot = (slot + 1) % SLOTS;
    this.#give(name, slot);
    return slot;
  }

  #give(name: string, slot: number): void {
    this.#slots.set(name, slot);
    this.#taken.add(slot);
    this.#version++;
  }

  #dropReleased(): void {
    for (const [name, slot] of this.#slots) {
      if (this.#inUse.has(name)) continue;
      this.#slots.delete(name);
      this.#taken.delete(slot);
      this.#version++;
      return;
    }
  }
}

function vipOf(slot: number): AutoVip {
  const [high, low] = [Math.floor(slot / 254), (slot % 254) + 1];
  return { ipv4: `240.240.${high}.${low}`, ipv6: `2001:2::${((high << 8) | low).toString(16)}` };
}

/** FNV-1a, 32 bits. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
