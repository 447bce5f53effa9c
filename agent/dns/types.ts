import { MeshError } from '../../mesh/common/errors.js';

/** Types of records (IANA) that are treated in some way of their own. */
export const recordType = {
  a: 1,
  cname: 5,
  soa: 6,
  ptr: 12,
  aaaa: 28,
  srv: 33,
  opt: 41,
  any: 255,
} as const;

/** RFC 1035 4.1.1, RFC 6891 (badVersion). */
export const rcode = {
  noError: 0,
  formatError: 1,
  serverFailure: 2,
  nameError: 3,
  notImplemented: 4,
  refused: 5,
  badVersion: 16,
} as const;

export const classIn = 1;

/** One entry of an answer. `owner` null: the name that was asked for. */
export interface DnsRecord {
  readonly owner: string | null;
  readonly type: number;
  readonly ttlSeconds: number;
  readonly data: Uint8Array;
}

export interface Question {
  /** As agent/dns/name.ts writes names. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
}

/** What EDNS (RFC 6891) says in a query. */
export interface Edns {
  readonly udpBytes: number;
  readonly version: number;
  /** DNSSEC OK. */
  readonly wantsDnssec: boolean;
  readonly hasOptions: boolean;
}

/** A query as a client has sent it; `bytes` are as they came. */
export interface Query {
  readonly id: number;
  readonly opcode: number;
  readonly recursionDesired: boolean;
  readonly checkingDisabled: boolean;
  readonly question: Question;
  /** The question section as it came: 0x20 spellings are given back. */
  readonly questionBytes: Uint8Array;
  readonly edns: Edns | null;
  readonly bytes: Buffer;
}

/** What of a server's response is looked at. */
export interface Response {
  readonly id: number;
  readonly rcode: number;
  readonly truncated: boolean;
  readonly question: Question;
  /** Of all sections, in order; without OPT. */
  readonly records: readonly ResponseRecord[];
  readonly bytes: Buffer;
}

export interface ResponseRecord {
  readonly section: 'answer' | 'authority' | 'additional';
  readonly type: number;
  readonly class: number;
  readonly ttlSeconds: number;
  /** Where the TTL stands. */
  readonly ttlAt: number;
  readonly dataAt: number;
  readonly dataBytes: number;
}

/** Bytes that are no DNS message. Never leaves the room. */
export class DnsFormatError extends Error {}

export type DnsErrorCode =
  | 'NO_UPSTREAM' // the pod's resolv.conf names no server that can be asked, or cannot be read
  | 'UPSTREAM_FAILED' // no server answered in time, or none well
  | 'TOO_MANY_QUERIES'; // the pod, or all pods together, have as many under way as may be

/** What a client sees as SERVFAIL. */
export class DnsError extends MeshError<DnsErrorCode> {}
