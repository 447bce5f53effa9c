import { ADDRESS_BYTES } from '../../native/index.js';
import { formatAddress, type SocketAddress, tryParseAddress, tryWriteIpv4 } from '../common/address.js';

/** The form in which addresses cross to C: family (4, 6), 0, port big-endian, address bytes. */

/** Writes `endpoint` at `at`. Throws RangeError for what is no IP address. */
export function writeAddress(into: Buffer, at: number, endpoint: SocketAddress): void {
  const { address, port } = endpoint;
  into[at] = 4;
  into[at + 1] = 0;
  into[at + 2] = port >>> 8;
  into[at + 3] = port;
  if (tryWriteIpv4(address, into, at + 4)) return;
  const bytes = tryParseAddress(address);
  if (bytes === null) throw new RangeError(`${address} is not an IP address`);
  into[at] = bytes.length === 4 ? 4 : 6;
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
  return {
    address: formatAddress(from, at + 4, from[at] === 6 ? 16 : 4),
    port: (from[at + 2]! << 8) | from[at + 3]!,
  };
}
