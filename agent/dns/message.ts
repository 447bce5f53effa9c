/** DNS messages (RFC 1035 4, RFC 6891): queries of clients, responses of servers, and answers of our own. Bounded reading, nothing trusted. */
import { encodeName, readName } from './name.js';
import {
  classIn,
  DnsFormatError,
  type DnsRecord,
  type Edns,
  type Query,
  type Question,
  type Response,
  type ResponseRecord,
  rcode,
  recordType,
} from './types.js';

export const headerBytes = 12;
/** Without EDNS. */
export const minUdpBytes = 512;
/** What we say we take, and send at most: fits every path's MTU (DNS flag day 2020). */
export const maxUdpBytes = 1232;
export const maxTcpBytes = 65_535;
/** A query has few records beside its question: OPT, TSIG. */
const maxQueryRecords = 8;

const flag = {
  response: 0x8000,
  authoritative: 0x0400,
  truncated: 0x0200,
  wanted: 0x0100,
  available: 0x0080,
};
const checkingDisabled = 0x0010;
/** A pointer to the question's name, which always stands behind the header. */
const pointerToQuestion = Buffer.from([0xc0, headerBytes]);

interface Record extends Omit<ResponseRecord, 'section'> {
  readonly name: string;
  readonly end: number;
}

/** Reads a query. Throws DnsFormatError; a client then gets FORMERR if there is an id to answer to. */
export function parseQuery(bytes: Buffer): Query {
  checkHeader(bytes);
  const flags = bytes.readUInt16BE(2);
  if ((flags & flag.response) !== 0) throw new DnsFormatError('a response, not a query');
  const counts = sectionCounts(bytes);
  if (counts.questions !== 1 || counts.answers !== 0) throw new DnsFormatError('not one question');
  if (counts.authorities + counts.additionals > maxQueryRecords) throw new DnsFormatError('too many records');
  const { question, end } = readQuestion(bytes);
  let edns: Edns | null = null;
  let at = end;
  for (let i = 0; i < counts.authorities + counts.additionals; i++) {
    const record = readRecord(bytes, at);
    at = record.end;
    if (record.type !== recordType.opt) continue;
    if (edns !== null || record.name !== '')
      throw new DnsFormatError('more than one OPT, or one with a name');
    edns = readEdns(record);
  }
  return {
    id: bytes.readUInt16BE(0),
    opcode: (flags >> 11) & 0xf,
    recursionDesired: (flags & flag.wanted) !== 0,
    checkingDisabled: (flags & checkingDisabled) !== 0,
    question,
    questionBytes: bytes.subarray(headerBytes, end),
    edns,
    bytes,
  };
}

/** Reads a response. Throws DnsFormatError. */
export function parseResponse(bytes: Buffer): Response {
  checkHeader(bytes);
  const flags = bytes.readUInt16BE(2);
  if ((flags & flag.response) === 0) throw new DnsFormatError('a query, not a response');
  const counts = sectionCounts(bytes);
  if (counts.questions !== 1) throw new DnsFormatError('not one question');
  const { question, end } = readQuestion(bytes);
  const truncated = (flags & flag.truncated) !== 0;
  return {
    id: bytes.readUInt16BE(0),
    rcode: flags & 0xf,
    truncated,
    question,
    // What is cut off may end anywhere; nothing of it is used.
    records: truncated ? [] : readRecords(bytes, end, counts),
    bytes,
  };
}

export function sameQuestion(a: Question, b: Question): boolean {
  return a.name === b.name && a.type === b.type && a.class === b.class;
}

export interface AnswerOptions {
  readonly rcode: number;
  readonly records?: readonly DnsRecord[];
  /** We know it ourselves. */
  readonly authoritative?: boolean;
  /** More than this is cut off and marked as truncated. */
  readonly maxBytes: number;
}

/** An answer of our own to a query. */
export function encodeAnswer(query: Query, options: AnswerOptions): Buffer {
  const opt = query.edns === null ? null : encodeOpt(options.rcode, query.edns.wantsDnssec);
  const room = options.maxBytes - headerBytes - query.questionBytes.length - (opt?.length ?? 0);
  const parts: Uint8Array[] = [query.questionBytes];
  let used = 0;
  let answers = 0;
  let truncated = false;
  for (const record of options.records ?? []) {
    const head = encodeRecordHead(record);
    used += head.length + record.data.length;
    truncated = used > room;
    if (truncated) break;
    parts.push(head, record.data);
    answers++;
  }
  if (opt !== null) parts.push(opt);
  const header = Buffer.alloc(headerBytes);
  header.writeUInt16BE(query.id, 0);
  const flags =
    flag.response |
    flag.available |
    (query.opcode << 11) |
    (query.recursionDesired ? flag.wanted : 0) |
    (query.checkingDisabled ? checkingDisabled : 0) |
    (options.authoritative ? flag.authoritative : 0) |
    (truncated ? flag.truncated : 0);
  header.writeUInt16BE(flags | (options.rcode & 0xf), 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(answers, 6);
  header.writeUInt16BE(opt === null ? 0 : 1, 10);
  return Buffer.concat([header, ...parts]);
}

/** What can be said to bytes that are no query: FORMERR with their id; null where even that is not there, or it is no query at all. */
export function encodeFormatError(bytes: Buffer): Buffer | null {
  if (bytes.length < headerBytes || (bytes.readUInt16BE(2) & flag.response) !== 0) return null;
  const header = Buffer.alloc(headerBytes);
  header.writeUInt16BE(bytes.readUInt16BE(0), 0);
  header.writeUInt16BE(flag.response | (bytes.readUInt16BE(2) & 0x7900) | rcode.formatError, 2);
  return header;
}

/** A query of our own, as a resolver's. */
export function encodeQuery(id: number, question: Question): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(flag.wanted, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(1, 10);
  const fixed = Buffer.alloc(4);
  fixed.writeUInt16BE(question.type, 0);
  fixed.writeUInt16BE(question.class, 2);
  return Buffer.concat([header, encodeName(question.name), fixed, encodeOpt(0, false)]);
}

/** A copy with another id. */
export function withId(message: Buffer, id: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}

/** The same response cut to its header and question, marked as truncated, for a client that takes no more. */
export function truncate(response: Response, query: Query): Buffer {
  const answer = encodeAnswer(query, { rcode: response.rcode, maxBytes: minUdpBytes });
  answer.writeUInt16BE(answer.readUInt16BE(2) | flag.truncated, 2);
  return answer;
}

function checkHeader(bytes: Buffer): void {
  if (bytes.length < headerBytes) throw new DnsFormatError('shorter than a header');
  if (bytes.length > maxTcpBytes) throw new DnsFormatError('longer than a message can be');
}

function sectionCounts(bytes: Buffer) {
  return {
    questions: bytes.readUInt16BE(4),
    answers: bytes.readUInt16BE(6),
    authorities: bytes.readUInt16BE(8),
    additionals: bytes.readUInt16BE(10),
  };
}

function readQuestion(bytes: Buffer): { question: Question; end: number } {
  const { name, end } = readName(bytes, headerBytes);
  if (end + 4 > bytes.length) throw new DnsFormatError('the question ends outside the message');
  // There is nothing before it to point to; and one spelling can then stand in for another.
  if (encodeName(name).length !== end - headerBytes) throw new DnsFormatError('a compressed question');
  const question = { name, type: bytes.readUInt16BE(end), class: bytes.readUInt16BE(end + 2) };
  return { question, end: end + 4 };
}

function readRecords(
  bytes: Buffer,
  start: number,
  counts: ReturnType<typeof sectionCounts>,
): ResponseRecord[] {
  const records: ResponseRecord[] = [];
  let at = start;
  const sections = [
    ['answer', counts.answers],
    ['authority', counts.authorities],
    ['additional', counts.additionals],
  ] as const;
  for (const [section, count] of sections) {
    for (let i = 0; i < count; i++) {
      const { name: _, end, ...record } = readRecord(bytes, at);
      at = end;
      if (record.type !== recordType.opt) records.push({ section, ...record });
    }
  }
  return records;
}

function readRecord(bytes: Buffer, at: number): Record {
  const { name, end } = readName(bytes, at);
  if (end + 10 > bytes.length) throw new DnsFormatError('a record ends outside the message');
  const dataAt = end + 10;
  const dataBytes = bytes.readUInt16BE(end + 8);
  if (dataAt + dataBytes > bytes.length) throw new DnsFormatError("a record's data end outside the message");
  return {
    name,
    type: bytes.readUInt16BE(end),
    class: bytes.readUInt16BE(end + 2),
    // RFC 2181 8: with the top bit set it is 0.
    ttlSeconds: Math.max(0, bytes.readInt32BE(end + 4)),
    ttlAt: end + 4,
    dataAt,
    dataBytes,
    end: dataAt + dataBytes,
  };
}

function readEdns(record: Record): Edns {
  return {
    udpBytes: Math.max(record.class, minUdpBytes),
    version: (record.ttlSeconds >> 16) & 0xff,
    wantsDnssec: (record.ttlSeconds & 0x8000) !== 0,
    hasOptions: record.dataBytes > 0,
  };
}

function encodeOpt(fullRcode: number, wantsDnssec: boolean): Buffer {
  const opt = Buffer.alloc(11);
  opt.writeUInt16BE(recordType.opt, 1);
  opt.writeUInt16BE(maxUdpBytes, 3);
  opt[5] = fullRcode >> 4;
  opt.writeUInt16BE(wantsDnssec ? 0x8000 : 0, 7);
  return opt;
}

function encodeRecordHead({ owner, type, ttlSeconds, data }: DnsRecord): Buffer {
  const fixed = Buffer.alloc(10);
  fixed.writeUInt16BE(type, 0);
  fixed.writeUInt16BE(classIn, 2);
  fixed.writeUInt32BE(ttlSeconds, 4);
  fixed.writeUInt16BE(data.length, 8);
  return Buffer.concat([owner === null ? pointerToQuestion : encodeName(owner), fixed]);
}
