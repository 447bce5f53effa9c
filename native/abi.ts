import type { SocketAddress } from '../mesh/common/address.js';
import { formatAddress, tryParseAddress, tryWriteIpv4 } from '../mesh/common/address.js';
import { NativeError } from './errors.js';

/**
 * The twin of bpf/include/abi.h; test/bpf/abi.test.ts holds both together by the objects' BTF. Words are in the machine's order,
 * little-endian on every machine we run on; addresses and ports in network order.
 */
export const abiVersion = 2;

/** Host order. */
export const outboundPort = 15001;
export const hbonePort = 15008;
export const dnsPort = 15053;
/** Redirected connections go to one of these, and by sk_lookup to the listener on `outboundPort`. */
export const redirectPorts = { first: 14336, count: 1024 } as const;

/** Values of map `pod_cgroups`. */
export const cgroupKind = { agent: 1, plain: 2, captured: 3 } as const;
export type CgroupKind = keyof typeof cgroupKind;

/** Keys of a pod's `listeners`. */
export const listenerSlot = { inbound: 0, hbone: 1, outbound: 2 } as const;

export const callerState = { set: 0, recorded: 1, lost: 2 } as const;

/** Keys of map `counters`, in order. */
export const counterNames = [
  'refused_unknown',
  'refused_no_address',
  'refused_original_full',
  'refused_no_storage',
  'refused_callers_full',
  'lost_original',
  'lost_caller',
  'lost_peer',
  'held_unknown',
  'dropped_no_listener',
  'dropped_not_assigned',
  'passed_probe',
  'passed_excluded',
  'lost_peer_name',
] as const;
export type CounterName = (typeof counterNames)[number];

/** Maps that all objects share and that outlive the agent. `listeners` is each pod's own. */
export const sharedMaps = [
  'pod_cgroups',
  'captured',
  'plain_netns',
  'original_dst',
  'mptcp_peers',
  'excluded_ports',
  'excluded_ranges',
  'tickets',
  'callers',
  'caller_sk',
  'peer_sk',
  'counters',
] as const;
export type SharedMap = (typeof sharedMaps)[number];

const AF_INET = 2;
const AF_INET6 = 10;

export const sizeOf = {
  endpoint: 20,
  capturedPod: 24,
  originalKey: 32,
  originalValue: 24,
  caller: 24,
  dialKey: 48,
  portKey: 16,
  rangeKey: 28,
  ticket: 40,
} as const;

/** A 32-bit key or value (slot, cgroup kind, counter, descriptor as key of socket storage). */
export function encodeU32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** A 64-bit key or value (cgroup id, netns cookie, descriptor as value of a sockmap). */
export function encodeU64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

/** struct endpoint at `offset`. Throws OUT_OF_BOUNDS for what is no IP address. */
export function writeEndpoint(into: Buffer, offset: number, endpoint: SocketAddress): void {
  writeAddress(into, offset, endpoint.address);
  writePort(into, offset + 16, endpoint.port);
  into[offset + 18] = into[offset + 19] = 0;
}

export function encodeEndpoint(endpoint: SocketAddress): Buffer {
  const bytes = Buffer.alloc(sizeOf.endpoint);
  writeEndpoint(bytes, 0, endpoint);
  return bytes;
}

export function readEndpoint(from: Buffer, offset = 0): SocketAddress {
  return {
    address: formatAddress(from, offset, 16),
    port: (from[offset + 16]! << 8) | from[offset + 17]!,
  };
}

/** The addresses of a captured pod, at most one of each family; canonical text. */
export interface CapturedAddresses {
  readonly ipv4: string | null;
  readonly ipv6: string | null;
  /** Whether its questions for names come to us. Absent: they do not. */
  readonly dns?: boolean;
}

/** Whether a captured pod has outbound exclusions of a kind: maps are asked only then. */
export interface ExclusionFlags {
  readonly ports: boolean;
  readonly ranges: boolean;
}

/** struct captured_pod. */
export function encodeCapturedPod(
  pod: CapturedAddresses,
  excludes: ExclusionFlags = { ports: false, ranges: false },
): Buffer {
  const bytes = Buffer.alloc(sizeOf.capturedPod);
  if (pod.ipv4 !== null) bytes.set(parse(pod.ipv4, 4), 0);
  if (pod.ipv6 !== null) bytes.set(parse(pod.ipv6, 16), 8);
  const { ports, ranges } = excludes;
  const flags = [pod.ipv4 !== null, pod.ipv6 !== null, ports, ranges, pod.dns === true];
  bytes.writeUInt32LE(
    flags.reduce((sum, flag, bit) => sum | (flag ? 1 << bit : 0), 0),
    4,
  );
  return bytes;
}

export function decodeCapturedPod(bytes: Buffer): CapturedAddresses {
  const flags = bytes.readUInt32LE(4);
  return {
    ipv4: (flags & 1) === 0 ? null : formatAddress(bytes, 0, 4),
    ipv6: (flags & 2) === 0 ? null : formatAddress(bytes, 8, 16),
    ...((flags & 16) === 0 ? {} : { dns: true }),
  };
}

/** struct port_key: a port (0: every one) of a captured pod that is left as it is. */
export function encodePortKey(netnsCookie: bigint, port: number, direction: 'outbound' | 'inbound'): Buffer {
  const bytes = Buffer.alloc(sizeOf.portKey);
  bytes.writeBigUInt64LE(netnsCookie, 0);
  bytes.writeUInt16LE(port, 8);
  bytes.writeUInt16LE(direction === 'outbound' ? 0 : 1, 10);
  return bytes;
}

/** struct range_key: destinations `address/prefix` (of the address's own family) that a captured pod reaches in clear. */
export function encodeRangeKey(netnsCookie: bigint, address: string, prefix: number): Buffer {
  const bytes = Buffer.alloc(sizeOf.rangeKey);
  bytes.writeBigUInt64LE(netnsCookie, 4);
  const isIpv4 = writeAddress(bytes, 12, address);
  bytes.writeUInt32LE(64 + (isIpv4 ? 96 : 0) + prefix, 0);
  return bytes;
}

/** Value of excluded_ranges: ::/0 covers v4-mapped addresses in the map, but is not meant for IPv4. */
export function encodeRangeValue(address: string): Buffer {
  return encodeU32(address.includes(':') ? AF_INET6 : AF_INET);
}

/** Whose entry of excluded_ports or excluded_ranges a key is. */
export function cookieOfExclusion(key: Buffer): bigint {
  return key.readBigUInt64LE(key.length === sizeOf.portKey ? 0 : 4);
}

/** struct original_key of the connection from `source` to port `listener` of its own pod. */
export function encodeOriginalKey(netnsCookie: bigint, source: SocketAddress, listener: number): Buffer {
  const bytes = Buffer.alloc(sizeOf.originalKey);
  bytes.writeBigUInt64LE(netnsCookie, 0);
  writeOriginalSides(bytes, source, listener);
  return bytes;
}

/** The part of an encoded original_key that differs from connection to connection of one namespace. */
export function writeOriginalSides(key: Buffer, source: SocketAddress, listener: number): void {
  const isIpv4 = writeAddress(key, 8, source.address);
  writePort(key, 24, source.port);
  key[26] = isIpv4 ? AF_INET : AF_INET6;
  writePort(key, 28, listener);
}

export function decodeOriginalKey(bytes: Buffer): { netnsCookie: bigint; source: SocketAddress } {
  return { netnsCookie: bytes.readBigUInt64LE(0), source: readEndpoint(bytes, 8) };
}

/** Of struct original_value. */
export function decodeOriginal(bytes: Buffer): SocketAddress {
  return readEndpoint(bytes);
}

/** Of struct original_value: seconds of CLOCK_MONOTONIC. */
export function originalBorn(bytes: Buffer): number {
  return bytes.readUInt32LE(20);
}

/** struct caller, for the socket storage `caller_sk` of a dialling socket, before connect. `into` saves the allocation. */
export function encodeCaller(endpoint: SocketAddress, into: Buffer = Buffer.alloc(sizeOf.caller)): Buffer {
  writeEndpoint(into, 0, endpoint);
  into.fill(0, sizeOf.endpoint);
  return into;
}

/** Of struct caller, after connect. */
export function decodeCaller(bytes: Buffer): { endpoint: SocketAddress; state: keyof typeof callerState } {
  const state = bytes.readUInt32LE(20);
  return {
    endpoint: readEndpoint(bytes),
    state: state === callerState.recorded ? 'recorded' : state === callerState.lost ? 'lost' : 'set',
  };
}

/** struct dial_key. */
export function encodeDialKey(
  netnsCookie: bigint,
  source: SocketAddress,
  destination: SocketAddress,
): Buffer {
  const bytes = Buffer.alloc(sizeOf.dialKey);
  bytes.writeBigUInt64LE(netnsCookie, 0);
  writeEndpoint(bytes, 8, source);
  writeEndpoint(bytes, 28, destination);
  return bytes;
}

/** Returns whether it is an IPv4 address, which is written as v4-mapped. */
function writeAddress(into: Buffer, offset: number, address: string): boolean {
  const isIpv4 = tryWriteIpv4(address, into, offset + 12);
  const bytes = isIpv4 ? null : parse(address, null);
  if (bytes?.length === 16) {
    into.set(bytes, offset);
    return false;
  }
  for (let i = 0; i < 10; i++) into[offset + i] = 0;
  into[offset + 10] = into[offset + 11] = 0xff;
  if (bytes !== null) into.set(bytes, offset + 12);
  return true;
}

function writePort(into: Buffer, offset: number, port: number): void {
  into[offset] = port >>> 8;
  into[offset + 1] = port;
}

/** `length` null: either family. */
function parse(address: string, length: 4 | 16 | null): Uint8Array {
  const bytes = tryParseAddress(address);
  if (bytes !== null && (length === null || bytes.length === length)) return bytes;
  throw new NativeError(
    'OUT_OF_BOUNDS',
    `${address} is no IP${length === 4 ? 'v4' : length === 16 ? 'v6' : ''} address`,
    {
      address,
    },
  );
}
