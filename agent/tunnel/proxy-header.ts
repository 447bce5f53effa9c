import { type SocketAddress, tryParseAddress } from '../../mesh/common/address.js';

/** PP2_TYPE 0xD0: the source's SPIFFE identity (hbone-and-wds.md 1.8). */
const typeIdentity = 0xd0;
const signature = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');

/** A PROXY protocol v2 header (haproxy's proxy-protocol.txt 2.2): who really connects, to what, and as whom. Two families become one, v4-mapped. */
export function proxyHeader(source: SocketAddress, destination: SocketAddress, identity: string): Buffer {
  const [from, to] = [tryParseAddress(source.address)!, tryParseAddress(destination.address)!];
  const isV4 = from.length === 4 && to.length === 4;
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(source.port, 0);
  ports.writeUInt16BE(destination.port, 2);
  const name = Buffer.from(identity);
  const tlv = Buffer.from([typeIdentity, name.length >> 8, name.length & 0xff]);
  const body = Buffer.concat([isV4 ? from : mapped(from), isV4 ? to : mapped(to), ports, tlv, name]);
  // Version 2, PROXY; TCP over IPv4 or IPv6.
  const head = Buffer.from([0x21, isV4 ? 0x11 : 0x21, body.length >> 8, body.length & 0xff]);
  return Buffer.concat([signature, head, body]);
}

function mapped(bytes: Uint8Array): Uint8Array {
  return bytes.length === 16 ? bytes : Buffer.concat([Buffer.alloc(10), Buffer.from([0xff, 0xff]), bytes]);
}
