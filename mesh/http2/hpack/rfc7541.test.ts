import { describe, expect, test } from '@jest/globals';
import type { HeaderList } from '../types.js';
import { HpackDecoder } from './decoder.js';
import { huffmanBytes, huffmanDecode, huffmanEncode } from './huffman.js';
import type { DynamicTable } from './table.js';

/** RFC 7541 appendix C.2 to C.6: each case is one connection, block by block. */
interface Block {
  readonly hex: string;
  readonly headers: HeaderList;
}

const REQUEST_1: HeaderList = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':path', '/'],
  [':authority', 'www.example.com'],
];
const REQUEST_2: HeaderList = [...REQUEST_1, ['cache-control', 'no-cache']];
const REQUEST_3: HeaderList = [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':path', '/index.html'],
  [':authority', 'www.example.com'],
  ['custom-key', 'custom-value'],
];
const DATE_21 = 'Mon, 21 Oct 2013 20:13:21 GMT';
const DATE_22 = 'Mon, 21 Oct 2013 20:13:22 GMT';
const COOKIE = 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1';
const LOCATION: HeaderList[number] = ['location', 'https://www.example.com'];
const PRIVATE: HeaderList[number] = ['cache-control', 'private'];
const RESPONSE_1: HeaderList = [[':status', '302'], PRIVATE, ['date', DATE_21], LOCATION];
const RESPONSE_2: HeaderList = [[':status', '307'], PRIVATE, ['date', DATE_21], LOCATION];
const RESPONSE_3: HeaderList = [
  [':status', '200'],
  PRIVATE,
  ['date', DATE_22],
  LOCATION,
  ['content-encoding', 'gzip'],
  ['set-cookie', COOKIE],
];

const CASES: Record<string, { tableBytes: number; blocks: Block[]; entries: HeaderList }> = {
  'C.2.1 literal with indexing': {
    tableBytes: 4096,
    blocks: [
      {
        hex: '400a637573746f6d2d6b65790d637573746f6d2d686561646572',
        headers: [['custom-key', 'custom-header']],
      },
    ],
    entries: [['custom-key', 'custom-header']],
  },
  'C.2.2 literal without indexing': {
    tableBytes: 4096,
    blocks: [{ hex: '040c2f73616d706c652f70617468', headers: [[':path', '/sample/path']] }],
    entries: [],
  },
  'C.2.3 literal never indexed': {
    tableBytes: 4096,
    blocks: [{ hex: '100870617373776f726406736563726574', headers: [['password', 'secret', true]] }],
    entries: [],
  },
  'C.2.4 indexed': { tableBytes: 4096, blocks: [{ hex: '82', headers: [[':method', 'GET']] }], entries: [] },
  'C.3 requests without Huffman': {
    tableBytes: 4096,
    blocks: [
      { hex: '828684410f7777772e6578616d706c652e636f6d', headers: REQUEST_1 },
      { hex: '828684be58086e6f2d6361636865', headers: REQUEST_2 },
      { hex: '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565', headers: REQUEST_3 },
    ],
    entries: [
      ['custom-key', 'custom-value'],
      ['cache-control', 'no-cache'],
      [':authority', 'www.example.com'],
    ],
  },
  'C.4 requests with Huffman': {
    tableBytes: 4096,
    blocks: [
      { hex: '828684418cf1e3c2e5f23a6ba0ab90f4ff', headers: REQUEST_1 },
      { hex: '828684be5886a8eb10649cbf', headers: REQUEST_2 },
      { hex: '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf', headers: REQUEST_3 },
    ],
    entries: [
      ['custom-key', 'custom-value'],
      ['cache-control', 'no-cache'],
      [':authority', 'www.example.com'],
    ],
  },
  'C.5 responses without Huffman, evictions': {
    tableBytes: 256,
    blocks: [
      {
        hex: '4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d',
        headers: RESPONSE_1,
      },
      { hex: '4803333037c1c0bf', headers: RESPONSE_2 },
      {
        hex: '88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31',
        headers: RESPONSE_3,
      },
    ],
    entries: [
      ['set-cookie', COOKIE],
      ['content-encoding', 'gzip'],
      ['date', DATE_22],
    ],
  },
  'C.6 responses with Huffman, evictions': {
    tableBytes: 256,
    blocks: [
      {
        hex: '488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3',
        headers: RESPONSE_1,
      },
      { hex: '4883640effc1c0bf', headers: RESPONSE_2 },
      {
        hex: '88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007',
        headers: RESPONSE_3,
      },
    ],
    entries: [
      ['set-cookie', COOKIE],
      ['content-encoding', 'gzip'],
      ['date', DATE_22],
    ],
  },
};

describe('RFC 7541 appendix C', () => {
  test.each(Object.entries(CASES))('%s', (_name, { tableBytes, blocks, entries }) => {
    const decoder = new HpackDecoder({ maxHeaderListBytes: 65_536 });
    const table = Reflect.get(decoder, 'table') as DynamicTable;
    table.resize(tableBytes);
    for (const { hex, headers } of blocks) {
      const bytes = Buffer.from(hex, 'hex');
      expect(decoder.decode(bytes, 0, bytes.length)).toEqual(headers);
    }
    expect(Array.from({ length: table.length }, (_, age) => table.at(age))).toEqual(entries);
  });

  test('C.1 integers: 10 and 1337 with a prefix of 5 bits, as table size updates', () => {
    const decoder = new HpackDecoder({ maxHeaderListBytes: 65_536 });
    const table = Reflect.get(decoder, 'table') as DynamicTable;
    decoder.decode(Buffer.from('2a', 'hex'), 0, 1);
    expect(table.maxBytes).toBe(10);
    decoder.decode(Buffer.from('3f9a0a', 'hex'), 0, 3);
    expect(table.maxBytes).toBe(1337);
  });

  test.each([
    ['www.example.com', 'f1e3c2e5f23a6ba0ab90f4ff'],
    ['no-cache', 'a8eb10649cbf'],
    ['custom-value', '25a849e95bb8e8b4bf'],
    [DATE_21, 'd07abe941054d444a8200595040b8166e082a62d1bff'],
    [COOKIE, '94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007'],
  ])('Huffman code of %s', (text, hex) => {
    const coded = Buffer.alloc(huffmanBytes(text));
    expect(huffmanEncode(text, coded, 0)).toBe(coded.length);
    expect(coded.toString('hex')).toBe(hex);
    const decoded = Buffer.alloc(200);
    expect(decoded.toString('latin1', 0, huffmanDecode(coded, 0, coded.length, decoded))).toBe(text);
  });
});
