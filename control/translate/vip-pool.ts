import type { ServiceEntry } from '../model/index.js';

/** Addresses that a ServiceEntry without any gets, one of each family: 240.240.0.0/16 and 2001:2::/48 (mesh-apis.md 2.5). */
export interface AutoVip {
  readonly ipv4: string;
  readonly ipv6: string;
}

/** Where ServiceEntries without addresses have theirs from. `name`: `<namespace>/<host>`. */
export interface Vips {
  /** Null: none (yet). */
  take(name: string, entry: ServiceEntry): AutoVip | null;
  /** The name is gone. */
  release(name: string): void;
  /** There is none to be had for it. */
  isShort(name: string, entry: ServiceEntry): boolean;
}

/** As `status.addresses` of the entries says: on Kubernetes one controller gives them, and all replicas read them there. */
export const STATUS_VIPS: Vips = {
  take: (name, entry) => {
    const host = name.slice(name.indexOf('/') + 1);
    const own = entry.automatic.filter((one) => one.host === host).map(({ address }) => address);
    const ipv4 = own.find((address) => !address.includes(':'));
    const ipv6 = own.find((address) => address.includes(':'));
    return ipv4 === undefined || ipv6 === undefined ? null : { ipv4, ipv6 };
  },
  release: () => {},
  isShort: () => false,
};

/** Last octets 0 and 255 are left out. */
const SLOTS = 256 * 254;
/** Addresses of entries that are gone are kept for them while there are no more than this. */
const MAX_RELEASED = 16_384;

/**
 * Gives each name an address of its own, the same for good: what is added or removed beside it changes nothing, and `saved` carries it over a
 * restart. A name that is new starts at its hash, so that without `saved` nearly all come out the same. The address of a name that is gone
 * stays with it: clients may still have it cached, and it may come back.
 */
export class VipPool implements Vips {
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

  isShort(name: string): boolean {
    return this.take(name) === null;
  }

  /** The name has this IPv4 address from now on. False: it is another name's, or none of the range. */
  adopt(name: string, ipv4: string): boolean {
    const slot = slotOf(ipv4);
    if (slot === null) return false;
    const before = this.#slots.get(name);
    if (before !== slot && this.#taken.has(slot)) return false;
    if (before !== slot) {
      if (before !== undefined) this.#taken.delete(before);
      this.#slots.delete(name);
      this.#give(name, slot);
    }
    this.#inUse.add(name);
    return true;
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

function slotOf(ipv4: string): number | null {
  const octets = /^240\.240\.(\d{1,3})\.(\d{1,3})$/.exec(ipv4)?.slice(1).map(Number);
  if (octets === undefined) return null;
  const [high, low] = octets as [number, number];
  return low >= 1 && low <= 254 && high <= 255 ? high * 254 + low - 1 : null;
}

/** FNV-1a, 32 bits. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
