import { formatAddress } from '../common/address.js';
import type { AddressRange } from '../store/types.js';

/** Collects everything that is wrong with one resource, so that a NACK names all of it. */
export class Problems {
  readonly list: string[] = [];

  add(field: string, reason: string): void {
    this.list.push(`${field}: ${reason}`);
  }
}

/** Canonical text of 4 or 16 bytes. */
export function readAddress(bytes: Uint8Array | null | undefined, field: string, problems: Problems): string {
  const length = bytes?.length ?? 0;
  if (bytes == null || (length !== 4 && length !== 16)) {
    problems.add(field, `an address has 4 or 16 bytes, not ${length}`);
    return '';
  }
  return formatAddress(bytes);
}

/** An address with a prefix length; a v4-mapped one becomes IPv4, its length counted from there. */
export function readRange(
  bytes: Uint8Array | null | undefined,
  prefixLength: number,
  field: string,
  problems: Problems,
): AddressRange {
  const address = readAddress(bytes, field, problems);
  if (address === '') return { address, prefixLength: 0 };
  const sentBits = bytes!.length * 8;
  const bits = address.includes(':') ? 128 : 32;
  const shortened = prefixLength - (sentBits - bits);
  if (prefixLength > sentBits || shortened < 0)
    problems.add(field, `prefix length ${prefixLength} does not fit ${address}`);
  return { address, prefixLength: shortened };
}

export function readPort(
  port: number | null | undefined,
  field: string,
  problems: Problems,
  least: 0 | 1,
): number {
  const value = port ?? 0;
  if (value < least || value > 65535) problems.add(field, `${value} is no port`);
  return value;
}

/** The word for an enum number; what is not in `words` (or null there) is a problem. */
export function readEnum<Word extends string>(
  value: number | null | undefined,
  words: readonly (Word | null)[],
  field: string,
  problems: Problems,
): Word {
  const word = words[value ?? 0];
  if (word == null) problems.add(field, `value ${value ?? 0} is not supported`);
  return word ?? words.find((candidate) => candidate !== null)!;
}

/** A name that may stand in a key, a URI or a SPIFFE identity: no slash, no space or control character, not empty unless told. */
export function readName(
  value: string | null | undefined,
  field: string,
  problems: Problems,
  mayBeEmpty = false,
): string {
  const name = value ?? '';
  if (name === '' && !mayBeEmpty) problems.add(field, 'is empty');
  if (/[\s/\p{Cc}]/u.test(name)) problems.add(field, `${JSON.stringify(name)} is no name`);
  return name;
}
