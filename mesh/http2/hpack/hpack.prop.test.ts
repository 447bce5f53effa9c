import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ConnectionError } from '../errors.js';
import { NaiveHpack, naiveHuffmanDecode } from '../testing/naive-hpack.js';
import type { HeaderList } from '../types.js';
import { HpackDecoder } from './decoder.js';
import { HpackEncoder } from './encoder.js';
import { huffmanBytes, huffmanDecode, huffmanEncode, huffmanMaxSymbols } from './huffman.js';

const RUNS = { seed: 20260822, numRuns: 300 };

const octets = (maxLength: number) =>
  fc.uint8Array({ maxLength }).map((bytes) => Buffer.from(bytes).toString('latin1'));
const name = fc.oneof(
  fc.constantFrom(
    ':method',
    ':path',
    'baggage',
    'traceparent',
    'forwarded',
    'cookie',
    'x-a',
    'x-b',
    'content-type',
  ),
  octets(12),
);
const value = fc.oneof(
  fc.constantFrom('', '/', 'GET', 'CONNECT', 'application/grpc', '10.0.0.1:80'),
  octets(60),
  octets(3000),
);
const field = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(name, value) },
  { weight: 1, arbitrary: fc.tuple(name, value, fc.constant(true as const)) },
);
const headerLists: fc.Arbitrary<HeaderList[]> = fc.array(fc.array(field, { maxLength: 12 }), {
  maxLength: 12,
});

/** [bits as text → symbol], found by encoding each symbol alone and dropping the padding that every longer code would not share. */
function codeTable(): Map<string, number> {
  const table = new Map<string, number>([['1'.repeat(30), 256]]);
  for (let symbol = 0; symbol < 256; symbol++) {
    const text = String.fromCharCode(symbol).repeat(8);
    const coded = Buffer.alloc(huffmanBytes(text));
    huffmanEncode(text, coded, 0);
    const bits = [...coded].map((byte) => byte.toString(2).padStart(8, '0')).join('');
    table.set(bits.slice(0, bits.length / 8), symbol);
  }
  return table;
}

describe('HPACK', () => {
  test('decode(encode(lists)) = lists over one connection, whatever the table sizes', () => {
    fc.assert(
      fc.property(headerLists, fc.array(fc.nat(5000), { maxLength: 12 }), (lists, sizes) => {
        const encoder = new HpackEncoder(4096);
        const decoder = new HpackDecoder({ maxHeaderListBytes: 1_000_000 });
        for (const [i, list] of lists.entries()) {
          if (sizes[i] !== undefined) encoder.setPeerTableBytes(sizes[i]);
          const out = Buffer.alloc(encoder.bound(list) + 7, 0xee);
          const end = encoder.encode(list, out, 3);
          expect(end).toBeLessThanOrEqual(3 + encoder.bound(list));
          const secrets = new Set(['authorization', 'proxy-authorization', 'cookie', 'set-cookie']);
          const marked = list.map((one) => (secrets.has(one[0]) ? [one[0], one[1], true] : one));
          expect(decoder.decode(out, 3, end)).toEqual(marked);
        }
      }),
      RUNS,
    );
  });

  test('blocks of the naive encoder, in any representation, decode to the same lists', () => {
    const form = fc.constantFrom('index', 'add', 'plain', 'never');
    const twoLists = fc.array(
      fc.tuple(
        fc.array(fc.tuple(name, value), { maxLength: 8 }),
        fc.array(form, { minLength: 8, maxLength: 8 }),
      ),
    );
    fc.assert(
      fc.property(twoLists, fc.nat(4096), (lists, size) => {
        const naive = new NaiveHpack();
        const decoder = new HpackDecoder({ maxHeaderListBytes: 1_000_000 });
        let update = naive.resize(size);
        for (const [list, forms] of lists) {
          const block = Buffer.concat([update, naive.encode(list, (i) => forms[i]! as 'index')]);
          update = Buffer.alloc(0);
          const decoded = decoder.decode(block, 0, block.length)!;
          expect(decoded.map(([n, v]) => [n, v])).toEqual(list);
        }
      }),
      RUNS,
    );
  });

  test('random bytes give a list within the limit, null, or COMPRESSION_ERROR', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 5 }), (blocks) => {
        const decoder = new HpackDecoder({ maxHeaderListBytes: 500 });
        try {
          for (const block of blocks) {
            const list = decoder.decode(Buffer.from(block), 0, block.length);
            const size = (list ?? []).reduce((sum, [n, v]) => sum + n.length + v.length + 32, 0);
            expect(size).toBeLessThanOrEqual(500);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(ConnectionError);
        }
      }),
      { ...RUNS, numRuns: 2000 },
    );
  });

  test('Huffman code: there and back, and the same as bit by bit for random bytes', () => {
    const table = codeTable();
    expect(table.size).toBe(257);
    fc.assert(
      fc.property(octets(200), (text) => {
        const coded = Buffer.alloc(huffmanBytes(text));
        expect(huffmanEncode(text, coded, 0)).toBe(coded.length);
        expect(naiveHuffmanDecode(coded, table)).toBe(text);
      }),
      RUNS,
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 12 }), (raw) => {
        const bytes = Buffer.from(raw);
        const attempt = (decode: () => string) => {
          try {
            return decode();
          } catch {
            return null;
          }
        };
        const out = Buffer.alloc(huffmanMaxSymbols(bytes.length) + 1);
        const fast = attempt(() => out.toString('latin1', 0, huffmanDecode(bytes, 0, bytes.length, out)));
        expect(fast).toBe(attempt(() => naiveHuffmanDecode(bytes, table)));
      }),
      { ...RUNS, numRuns: 3000 },
    );
  });
});
