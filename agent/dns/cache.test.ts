import { beforeEach, describe, expect, test } from '@jest/globals';
import { ResponseCache } from './cache.js';
import { encodeAnswer, encodeQuery, parseQuery, parseResponse } from './message.js';
import { encodeName } from './name.js';
import { type DnsRecord, type Query, type Response, recordType } from './types.js';

let nowMs: number;
let cache: ResponseCache;
beforeEach(() => {
  nowMs = 1_000_000;
  cache = new ResponseCache({ maxEntries: 10, maxBytes: 20_000, maxTtlSeconds: 300 }, { nowMs: () => nowMs });
});

const queryFor = (name: string, type = 1, id = 7): Query =>
  parseQuery(encodeQuery(id, { name, type, class: 1 }));
const a = (ttlSeconds: number, data = [1, 2, 3, 4]): DnsRecord => ({
  owner: null,
  type: 1,
  ttlSeconds,
  data: Buffer.from(data),
});
const responseTo = (query: Query, records: DnsRecord[], rcode = 0): Response =>
  parseResponse(encodeAnswer(query, { rcode, records, maxBytes: 60_000 }));
/** A "no" with the SOA in the authority section. */
const noTo = (query: Query, rcode: number, soaTtl: number, minimum: number): Response => {
  const numbers = Buffer.alloc(20);
  numbers.writeUInt32BE(minimum, 16);
  const data = Buffer.concat([encodeName('ns.example'), encodeName('me.example'), numbers]);
  const soa = { owner: 'example', type: recordType.soa, ttlSeconds: soaTtl, data };
  const bytes = encodeAnswer(query, { rcode, records: [soa], maxBytes: 60_000 });
  bytes.writeUInt16BE(0, 6);
  bytes.writeUInt16BE(1, 8);
  return parseResponse(bytes);
};

describe('answers are kept', () => {
  test('as long as their shortest TTL, which is counted down', () => {
    const query = queryFor('a.example');
    cache.put(query, responseTo(query, [a(60), a(30)]));
    nowMs += 10_500;
    const got = cache.get(queryFor('a.example', 1, 99))!;
    expect(got.bytes.readUInt16BE(0)).toBe(99);
    expect(parseResponse(got.bytes).records.map(({ ttlSeconds }) => ttlSeconds)).toEqual([50, 20]);
    nowMs += 19_500;
    expect(cache.get(query)).toBeNull();
    expect([cache.size, cache.bytes]).toEqual([0, 0]);
  });

  test('never longer than the limit, and not at all with TTL 0, errors or truncation', () => {
    const query = queryFor('a.example');
    cache.put(query, responseTo(query, [a(0)]));
    cache.put(query, responseTo(query, [a(60)], 2));
    cache.put(query, { ...responseTo(query, [a(60)]), truncated: true });
    expect(cache.size).toBe(0);
    cache.put(query, responseTo(query, [a(100_000)]));
    nowMs += 299_000;
    expect(cache.get(query)).not.toBeNull();
    nowMs += 1_000;
    expect(cache.get(query)).toBeNull();
  });

  test('a "no" as long as its SOA says (RFC 2308), without one not', () => {
    for (const rcode of [0, 3]) {
      const query = queryFor(`n${rcode}.example`);
      cache.put(query, responseTo(query, [], rcode));
      expect(cache.get(query)).toBeNull();
      cache.put(query, noTo(query, rcode, 100, 20));
      nowMs += 19_000;
      expect(cache.get(query)).not.toBeNull();
      nowMs += 1_000;
      expect(cache.get(query)).toBeNull();
    }
  });

  test('for the same question and flags only, not for clients with options of their own', () => {
    const query = queryFor('a.example');
    cache.put(query, responseTo(query, [a(60)]));
    expect(cache.get(queryFor('A.EXAMPLE'))).not.toBeNull();
    expect(cache.get(queryFor('a.example', 28))).toBeNull();
    expect(cache.get({ ...query, checkingDisabled: true })).toBeNull();
    expect(cache.get({ ...query, edns: null })).toBeNull();
    const withOptions = { ...query, edns: { ...query.edns!, hasOptions: true } };
    expect(cache.get(withOptions)).toBeNull();
    cache.clear();
    cache.put(withOptions, responseTo(query, [a(60)]));
    expect(cache.size).toBe(0);
  });
});

test('a million names hold no more than the limits, the newest stay', () => {
  for (let i = 0; i < 5_000; i++) {
    const query = queryFor(`n${i}.example`);
    cache.put(
      query,
      responseTo(
        query,
        Array.from({ length: i % 40 }, () => a(60)),
      ),
    );
    expect(cache.size).toBeLessThanOrEqual(10);
    expect(cache.bytes).toBeLessThanOrEqual(20_000);
  }
  expect(cache.get(queryFor('n4999.example'))).not.toBeNull();
  const query = queryFor('huge.example');
  cache.put(
    query,
    responseTo(
      query,
      Array.from({ length: 2_000 }, () => a(60)),
    ),
  );
  expect(cache.get(query)).toBeNull();
});
