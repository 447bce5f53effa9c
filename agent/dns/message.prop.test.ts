import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  encodeAnswer,
  encodeFormatError,
  encodeQuery,
  headerBytes,
  maxTcpBytes,
  parseQuery,
  parseResponse,
  truncate,
} from './message.js';
import { encodeName, readName } from './name.js';
import { DnsFormatError, type DnsRecord } from './types.js';

const SEED = { seed: 20261122 };
const labels = fc.array(fc.uint8Array({ minLength: 1, maxLength: 20 }), { maxLength: 6 });
const wireName = labels.map((parts) =>
  Buffer.concat([...parts.map((part) => Buffer.from([part.length, ...part])), Buffer.alloc(1)]),
);
const hostName = fc
  .array(fc.stringMatching(/^[a-z0-9_-]{1,20}$/), { minLength: 1, maxLength: 6 })
  .map((parts) => parts.join('.'));
const record: fc.Arbitrary<DnsRecord> = fc.record({
  owner: fc.option(hostName, { nil: null }),
  type: fc.constantFrom(1, 5, 28, 33, 16),
  ttlSeconds: fc.nat({ max: 100_000 }),
  data: fc.uint8Array({ maxLength: 60 }),
});

/** ASCII upper case only. */
const lower = (bytes: Uint8Array) =>
  Buffer.from(bytes.map((code) => (code >= 0x41 && code <= 0x5a ? code + 0x20 : code)));

function onlyFormatErrors(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(DnsFormatError);
  }
}

describe('names', () => {
  test('any bytes as text and back are the same but for case', () => {
    fc.assert(
      fc.property(wireName, fc.uint8Array({ maxLength: 8 }), (wire, before) => {
        const { name, end } = readName(Buffer.concat([before, wire]), before.length);
        expect(end).toBe(before.length + wire.length);
        // A length byte is below 64, so lowering case touches labels' bytes only.
        expect(encodeName(name)).toEqual(lower(wire));
      }),
      SEED,
    );
  });

  test('pointers lead backwards only: no message keeps a reader busy', () => {
    expect(readName(Buffer.from([1, 0x61, 0, 1, 0x62, 0xc0, 0]), 3)).toEqual({ name: 'b.a', end: 7 });
    for (const bytes of [[0xc0, 0], [0xc0, 2, 0xc0, 0], [1, 0x61, 0xc0, 0], [0xc0], [5, 1], [0x80, 0], []])
      expect(() => readName(Buffer.from(bytes), 0)).toThrow(DnsFormatError);
  });

  test('255 bytes and labels of 63, no more', () => {
    const label = 'a'.repeat(63);
    const longest = [label, label, label, 'b'.repeat(61)].join('.');
    expect(encodeName(longest)).toHaveLength(255);
    expect(readName(encodeName(longest), 0).name).toBe(longest);
    for (const name of [`${longest}b`, `${label}a`, 'a..b', '.', `${longest}.c`])
      expect(() => encodeName(name)).toThrow(DnsFormatError);
  });
});

describe('messages', () => {
  test('a query of ours is read as it was meant', () => {
    fc.assert(
      fc.property(hostName, fc.nat(65_535), fc.nat(65_535), (name, id, type) => {
        const query = parseQuery(encodeQuery(id, { name, type, class: 1 }));
        expect(query).toMatchObject({
          id,
          opcode: 0,
          recursionDesired: true,
          question: { name, type, class: 1 },
        });
        expect(query.edns).toMatchObject({ version: 0, hasOptions: false });
      }),
      SEED,
    );
  });

  test('an answer is read as it was meant, and never longer than it may be', () => {
    fc.assert(
      fc.property(
        hostName,
        fc.array(record, { maxLength: 30 }),
        fc.integer({ min: 512, max: 1500 }),
        (name, records, maxBytes) => {
          const query = parseQuery(encodeQuery(7, { name, type: 1, class: 1 }));
          const bytes = encodeAnswer(query, { rcode: 0, records, maxBytes });
          expect(bytes.length).toBeLessThanOrEqual(maxBytes);
          const whole = encodeAnswer(query, { rcode: 0, records, maxBytes: maxTcpBytes });
          const response = parseResponse(whole);
          expect(response).toMatchObject({ id: 7, truncated: false, question: query.question });
          expect(
            response.records.map(({ type, ttlSeconds, dataAt, dataBytes }) => ({
              type,
              ttlSeconds,
              data: Buffer.from(whole.subarray(dataAt, dataAt + dataBytes)),
            })),
          ).toEqual(
            records.map(({ type, ttlSeconds, data }) => ({ type, ttlSeconds, data: Buffer.from(data) })),
          );
          expect(parseResponse(bytes).truncated).toBe(whole.length > maxBytes);
          expect(parseResponse(truncate(response, query))).toMatchObject({ truncated: true, records: [] });
        },
      ),
      SEED,
    );
  });

  test('random bytes, and sound messages with bytes changed, raise nothing but DnsFormatError', () => {
    const sound = encodeAnswer(parseQuery(encodeQuery(7, { name: 'a.example', type: 1, class: 1 })), {
      rcode: 0,
      records: [{ owner: 'b.example', type: 1, ttlSeconds: 5, data: Buffer.from([1, 2, 3, 4]) }],
      maxBytes: 512,
    });
    const changed = fc
      .array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 6 })
      .map((changes) => {
        const bytes = Buffer.from(sound);
        for (const [at, value] of changes) bytes[at] = value;
        return bytes;
      });
    const random = fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes));
    fc.assert(
      fc.property(fc.oneof(changed, random), fc.nat(100), (bytes, cut) => {
        for (const piece of [bytes, bytes.subarray(0, cut)]) {
          onlyFormatErrors(() => parseQuery(piece));
          onlyFormatErrors(() => parseResponse(piece));
          const error = encodeFormatError(piece);
          if (error !== null) expect(error).toHaveLength(headerBytes);
        }
      }),
      { ...SEED, numRuns: 3_000 },
    );
  });

  test('what is no single plain question is refused', () => {
    const good = encodeQuery(7, { name: 'a', type: 1, class: 1 });
    const with16 = (at: number, value: number) => {
      const bytes = Buffer.from(good);
      bytes.writeUInt16BE(value, at);
      return bytes;
    };
    const twoOpts = Buffer.concat([with16(10, 2), good.subarray(-11)]);
    for (const bytes of [with16(2, 0x8000), with16(4, 0), with16(4, 2), with16(6, 1), with16(10, 9), twoOpts])
      expect(() => parseQuery(bytes)).toThrow(DnsFormatError);
  });
});
