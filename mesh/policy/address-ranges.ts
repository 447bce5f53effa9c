import { tryParseAddress } from '../common/address.js';
import type { AddressRange } from '../store/types.js';

/** An address as 32-bit words, highest first: one word is IPv4, four are IPv6. */
export type AddressWords = readonly number[];

/** Null for what is no address. */
export function wordsOf(address: string): AddressWords | null {
  const bytes = tryParseAddress(address);
  if (bytes === null) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length / 4 }, (_, i) => view.getInt32(4 * i));
}

/** Networks, to ask whether one contains an address: a comparison of words each, no text. */
export class AddressRanges {
  readonly #ranges: readonly { readonly network: AddressWords; readonly masks: AddressWords }[];

  /** Throws RangeError where one is no range. */
  constructor(ranges: readonly AddressRange[]) {
    this.#ranges = ranges.map(({ address, prefixLength }) => {
      const words = wordsOf(address);
      if (words === null || prefixLength < 0 || prefixLength > 32 * words.length)
        throw new RangeError(`${JSON.stringify(address)}/${prefixLength} is no address range`);
      const masks = words.map((_, i) => maskOf(prefixLength - 32 * i));
      return { masks, network: words.map((word, i) => word & masks[i]!) };
    });
  }

  contain(address: AddressWords | null): boolean {
    if (address === null) return false;
    for (const { network, masks } of this.#ranges) {
      if (network.length !== address.length) continue;
      let i = 0;
      while (i < network.length && (address[i]! & masks[i]!) === network[i]!) i++;
      if (i === network.length) return true;
    }
    return false;
  }
}

function maskOf(bits: number): number {
  if (bits <= 0) return 0;
  return bits >= 32 ? -1 : -1 << (32 - bits);
}
