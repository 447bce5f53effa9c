import { ADDRESS_BYTES } from '../../native/index.js';
import { formatAddress, type SocketAddress, tryParseAddress } from '../common/address.js';

/** The form in which addresses cross to C: family (4, 6), 0, port big-endian, address bytes. */

/** Writes `endpoint` at `at`. Throws RangeError for what is no IP address. */
export function writeAddress(into: Buffer, at: number, endpoint: SocketAddress): void {
  const bytes = tryParseAddress(endpoint.address);
  if (bytes === null) throw new RangeError(`${endpoint.address} is not an IP address`);
  into[at] = bytes.length === 4 ? 4 : 6;
  into[at + 1] = 0;
  into.writeUInt16BE(endpoint.port, at + 2);
  into.set(bytes, at + 4);
}

/** Own and peer address at `at`. */
export function addressesAt(
  from: Buffer,
  at: number,
): { readonly local: SocketAddress; readonly remote: SocketAddress } {
  return { local: readAddress(from, at), remote: readAddress(from, at + ADDRESS_BYTES) };
}

function readAddress(from: Buffer, at: number): SocketAddress {
  return { address: formatAddress(from, at + 4, from[at] === 6 ? 16 : 4), port: from.readUInt16BE(at + 2) };
}
