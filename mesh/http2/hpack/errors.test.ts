import { describe, expect, test } from '@jest/globals';
import { HpackDecoder } from './decoder.js';
import { HpackEncoder } from './encoder.js';

function decode(hex: string, maxHeaderListBytes = 65_536) {
  const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex');
  return new HpackDecoder({ maxHeaderListBytes }).decode(bytes, 0, bytes.length);
}

describe('a broken block is a COMPRESSION_ERROR', () => {
  test.each([
    ['80', 'no table entry 0'],
    ['be', 'no table entry 62'],
    ['7f00 0161', 'no table entry 63'],
    ['ff', 'ends within an integer'],
    ['ff80', 'ends within an integer'],
    ['ff80808080808000', 'integer too large'],
    ['ffffffffff7f', 'integer too large'],
    ['40', 'ends within a field'],
    ['400161', 'ends within a field'],
    ['40026100', 'ends within a field'],
    ['400161 0561', 'ends beyond its block'],
    ['04 84ffffffff', 'EOS'],
    ['04 81fe', 'bad Huffman padding'],
    ['04 8207ff', 'bad Huffman padding'],
    ['04 81ff', 'bad Huffman padding'],
    ['3fe21f', 'table size update to 4097'],
    ['202020', 'too many table size updates'],
    ['82 20', 'table size update within a block'],
  ])('%s', (hex, reason) => {
    expect(() => decode(hex)).toThrow(reason);
  });

  test('after our SETTINGS lowered the table, the next block must say so', () => {
    const decoder = new HpackDecoder({ maxHeaderListBytes: 1000 });
    decoder.setTableCeiling(100);
    expect(() => decoder.decode(Buffer.from('82', 'hex'), 0, 1)).toThrow('no table size update');
    const obedient = new HpackDecoder({ maxHeaderListBytes: 1000 });
    obedient.setTableCeiling(0);
    expect(obedient.decode(Buffer.from('2082', 'hex'), 0, 2)).toEqual([[':method', 'GET']]);
  });
});

describe('the list size is counted while decoding', () => {
  test('a list beyond the limit is null, and the table is kept in step', () => {
    const decoder = new HpackDecoder({ maxHeaderListBytes: 100 });
    const bomb = Buffer.concat([
      Buffer.from('4001611e', 'hex'),
      Buffer.alloc(30, 'b'),
      Buffer.alloc(50_000, 0xbe),
    ]);
    expect(decoder.decode(bomb, 0, bomb.length)).toBeNull();
    expect(decoder.decode(Buffer.from('be', 'hex'), 0, 1)).toEqual([['a', 'b'.repeat(30)]]);
  });

  test('exactly the limit passes', () => {
    expect(decode('400161 0162', 34)).toEqual([['a', 'b']]);
    expect(decode('400161 0162', 33)).toBeNull();
  });
});

describe('what the encoder chooses', () => {
  const encode = (encoder: HpackEncoder, headers: [string, string, true?][]) => {
    const out = Buffer.alloc(encoder.bound(headers));
    return out.subarray(0, encoder.encode(headers, out, 0));
  };

  test('what repeats is one octet the second time', () => {
    const encoder = new HpackEncoder(4096);
    const headers: [string, string][] = [
      [':method', 'CONNECT'],
      [':authority', '10.0.0.1:80'],
      ['baggage', 'k8s.namespace.name=default'],
    ];
    encode(encoder, headers);
    expect(encode(encoder, headers).length).toBe(3);
  });

  test('values that never repeat leave only their name in the table', () => {
    const encoder = new HpackEncoder(4096);
    const values = Array.from({ length: 100 }, (_, i) => `00-${i}-01`);
    for (const value of values) encode(encoder, [['traceparent', value]]);
    expect(encode(encoder, [['traceparent', 'x']]).toString('hex')).toBe('0f2f0178');
  });

  test('secrets are literals that no hop may index', () => {
    const encoder = new HpackEncoder(4096);
    expect(encode(encoder, [['authorization', 'Basic x']])[0]! & 0xf0).toBe(0x10);
    expect(encode(encoder, [['x-token', 'secret', true]])[0]).toBe(0x10);
    const decoder = new HpackDecoder({ maxHeaderListBytes: 1000 });
    const block = encode(encoder, [['x-token', 'secret', true]]);
    expect(decoder.decode(block, 0, block.length)).toEqual([['x-token', 'secret', true]]);
  });

  test('a changed table size is announced, down and up', () => {
    const encoder = new HpackEncoder(4096);
    encoder.setPeerTableBytes(100);
    encoder.setPeerTableBytes(1000);
    expect(encode(encoder, [[':method', 'GET']]).toString('hex')).toBe('3f453fc90782');
    encoder.setPeerTableBytes(0);
    expect(encode(encoder, [['a', 'b']]).toString('hex')).toBe('2000016101' + '62');
  });

  test('the peer may allow more than we care to keep', () => {
    const encoder = new HpackEncoder(4096);
    encoder.setPeerTableBytes(1_000_000);
    expect(encode(encoder, [[':method', 'GET']]).toString('hex')).toBe('82');
  });
});
