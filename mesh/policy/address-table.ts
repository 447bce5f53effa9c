import { tryParseAddress } from '../common/address.js';
import type { AddressRange } from '../store/types.js';

/** An address as 32-bit words, highest first: one word is IPv4, four are IPv6. */
export type AddressWords = readonly number[];

/** Null for what is no address. */
export function wordsOf(address: string): AddressWords | null {
  const bytes = tryParseAddress(address);
  if (bytes === null) return null;
  const words: number[] = [];
  for (let i = 0; i < bytes.length; i += 4)
    words.push((bytes[i]! << 24) | (bytes[i + 1]! << 16) | (bytes[i + 2]! << 8) | bytes[i + 3]!);
  return words;
}

/** Networks of one family and prefix length. */
interface Length<Value> {
  readonly words: number;
  readonly prefixLength: number;
  readonly networks: Map<number | string, Value[]>;
}

/** Values by address range; a look-up takes one step per prefix length in use, however many ranges there are. */
export class AddressTable<Value> {
  readonly #lengths: Length<Value>[] = [];

  /** Throws RangeError where it is no range. */
  add({ address, prefixLength }: AddressRange, value: Value): void {
    const words = wordsOf(address);
    if (words === null || prefixLength < 0 || prefixLength > 32 * words.length)
      throw new RangeError(`${JSON.stringify(address)}/${prefixLength} is no address range`);
    const networks = this.#networksOf(words.length, prefixLength);
    const key = networkKeyOf(words, prefixLength);
    const values = networks.get(key);
    if (values === undefined) networks.set(key, [value]);
    else values.push(value);
  }

  has(address: AddressWords | null): boolean {
    if (address === null) return false;
    for (const { words, prefixLength, networks } of this.#lengths)
      if (words === address.length && networks.has(networkKeyOf(address, prefixLength))) return true;
    return false;
  }

  /** The lists of values of the ranges that contain it, each in the order in which its values were added. */
  listsAt(address: AddressWords | null): readonly (readonly Value[])[] {
    const lists: Value[][] = [];
    if (address === null) return lists;
    for (const { words, prefixLength, networks } of this.#lengths) {
      const values = words === address.length ? networks.get(networkKeyOf(address, prefixLength)) : undefined;
      if (values !== undefined) lists.push(values);
    }
    return lists;
  }

  #networksOf(words: number, prefixLength: number): Length<Value>['networks'] {
    let length = this.#lengths.find((one) => one.words === words && one.prefixLength === prefixLength);
    if (length === undefined) {
      length = { words, prefixLength, networks: new Map() };
      this.#lengths.push(length);
    }
    return length.networks;
  }
}

/** Tables of lists of ranges, each made when it is asked for first and kept for as long as its list lives. */
export class RangeTables {
  readonly #none = new AddressTable<null>();
  readonly #tables = new WeakMap<readonly AddressRange[], AddressTable<null>>();

  /** Throws RangeError where one is no range. */
  of(ranges: readonly AddressRange[]): AddressTable<null> {
    if (ranges.length === 0) return this.#none;
    let table = this.#tables.get(ranges);
    if (table === undefined) {
      table = new AddressTable();
      for (const range of ranges) table.add(range, null);
      this.#tables.set(ranges, table);
    }
    return table;
  }
}

/** A number for IPv4, text for IPv6. */
function networkKeyOf(words: AddressWords, prefixLength: number): number | string {
  if (words.length === 1) return words[0]! & maskOf(prefixLength);
  return words.map((word, i) => word & maskOf(prefixLength - 32 * i)).join();
}

function maskOf(bits: number): number {
  if (bits <= 0) return 0;
  return bits >= 32 ? -1 : -1 << (32 - bits);
}
