import { compareAge, type Model, type ObjectKey, type ServiceEntry } from '../model/index.js';
import { entryNeedsVip, entryResourceName, STATUS_VIPS, VipPool } from '../translate/index.js';
import type { StatusAddress } from './types.js';

/**
 * Gives ServiceEntries their automatic addresses; the leader's part. What a status says stays: only what has none, or what a rival has, is given one. All
 * that it knows it finds in the statuses again.
 */
export class VipAllocator {
  readonly #model: Pick<Model, 'ownsHost' | 'relations'>;
  #pool: VipPool;
  /** Of each entry, the names that it has addresses for. */
  readonly #names: Map<ObjectKey, readonly string[]>;

  constructor(deps: { readonly model: Pick<Model, 'ownsHost' | 'relations'> }) {
    this.#model = deps.model;
    this.#pool = new VipPool();
    this.#names = new Map();
  }

  /** Reads all statuses anew: at the beginning of a term. Of two that claim one address the older has it. */
  reset(): void {
    this.#pool = new VipPool();
    this.#names.clear();
    const entries = [...this.#model.relations.all].filter((one) => one.kind === 'ServiceEntry');
    for (const entry of entries.sort(compareAge))
      for (const { name } of this.#needed(entry)) this.#adopt(name, entry);
  }

  /** What the entry's status.addresses are to be. Null: not all that it needs can be had. */
  addressesOf(key: ObjectKey, entry: ServiceEntry): readonly StatusAddress[] | null {
    const needed = this.#needed(entry);
    this.#keep(
      key,
      needed.map(({ name }) => name),
    );
    const addresses: StatusAddress[] = [];
    for (const { name, host } of needed) {
      this.#adopt(name, entry);
      const vip = this.#pool.take(name);
      if (vip === null) return null;
      addresses.push({ host, value: vip.ipv4 }, { host, value: vip.ipv6 });
    }
    return addresses;
  }

  /** The entry is gone. */
  forget(key: ObjectKey): void {
    this.#keep(key, []);
  }

  #keep(key: ObjectKey, names: readonly string[]): void {
    for (const name of this.#names.get(key) ?? []) if (!names.includes(name)) this.#pool.release(name);
    if (names.length === 0) this.#names.delete(key);
    else this.#names.set(key, names);
  }

  #adopt(name: string, entry: ServiceEntry): void {
    const written = STATUS_VIPS.take(name, entry)?.ipv4;
    if (written !== undefined) this.#pool.adopt(name, written);
  }

  #needed(entry: ServiceEntry): { readonly name: string; readonly host: string }[] {
    return entry.hosts
      .filter((host) => entryNeedsVip(entry, host) && this.#model.ownsHost(entry, host))
      .map((host) => ({ name: entryResourceName(entry, host), host }));
  }
}
