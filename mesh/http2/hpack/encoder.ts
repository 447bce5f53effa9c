import type { HeaderList } from '../types.js';
import { DEFAULT_HEADER_TABLE_BYTES } from '../wire/frame.js';
import { huffmanBytes, huffmanEncode } from './huffman.js';
import { DynamicTable, fieldBytes, type HeaderField, STATIC_TABLE } from './table.js';

/** Secrets: literals that no hop may put into a table (RFC 7541 section 7.1.3). A field marked sensitive is treated alike. */
const SENSITIVE_NAMES: ReadonlySet<string> = new Set([
  'authorization',
  'proxy-authorization',
  'cookie',
  'set-cookie',
]);

/** Values that do not come twice: in the table they would only push out the ones that do. Their name gets one entry. */
const UNIQUE_NAMES: ReadonlySet<string> = new Set([
  'traceparent',
  'tracestate',
  'forwarded',
  'x-forwarded-for',
  'x-request-id',
  'x-b3-traceid',
  'x-b3-spanid',
  'x-b3-parentspanid',
  'content-length',
  'content-range',
  'range',
  'date',
  'age',
  'expires',
  'etag',
  'last-modified',
  'if-none-match',
  'if-modified-since',
  'location',
]);

/** First octets of the representations (RFC 7541 section 6) and the largest value of their prefix. */
const INDEXED = { octet: 0x80, mask: 0x7f } as const;
const WITH_INDEXING = { octet: 0x40, mask: 0x3f } as const;
const SIZE_UPDATE = { octet: 0x20, mask: 0x1f } as const;
const NEVER_INDEXED = { octet: 0x10, mask: 0x0f } as const;
const WITHOUT_INDEXING = { octet: 0x00, mask: 0x0f } as const;

const CODED_STRING = { octet: 0x80, mask: 0x7f } as const;
const RAW_STRING = { octet: 0x00, mask: 0x7f } as const;

/** First octet, index and two string lengths, at most 6 octets each; and two table size updates. */
const FIELD_OVERHEAD_BYTES = 24;
const BLOCK_OVERHEAD_BYTES = 12;
const FIRST_DYNAMIC_INDEX = 62;

interface NameEntries {
  /** Static: index of the first. Dynamic: insertion number of the newest. */
  place: number;
  readonly byValue: Map<string, number>;
}

function add(names: Map<string, NameEntries>, field: HeaderField, place: number, newestWins: boolean): void {
  const entries = names.get(field[0]);
  if (entries === undefined) {
    names.set(field[0], { place, byValue: new Map([[field[1], place]]) });
  } else {
    entries.byValue.set(field[1], place);
    if (newestWins) entries.place = place;
  }
}

const STATIC_INDEX: ReadonlyMap<string, NameEntries> = (() => {
  const names = new Map<string, NameEntries>();
  for (const [index, field] of STATIC_TABLE.entries()) add(names, field, index + 1, false);
  return names;
})();

/** A dynamic table that finds entries by name and value. */
class SearchableTable extends DynamicTable {
  readonly names = new Map<string, NameEntries>();

  override add(field: HeaderField): void {
    super.add(field);
    // kept at all? a field beyond the table's size is not
    if (this.at(0) === field) add(this.names, field, this.inserted, true);
  }

  protected override evicted(field: HeaderField, insertion: number): void {
    const entries = this.names.get(field[0])!;
    if (entries.byValue.get(field[1]) === insertion) entries.byValue.delete(field[1]);
    if (entries.place === insertion) this.names.delete(field[0]);
  }
}

/**
 * HPACK encoder of one connection. What comes again (method, authority, baggage) is sent once and then by index; when the FIFO has pushed it
 * out it is entered anew. Entered values are Huffman-coded; those that never repeat go raw: coding them would cost both ends more than the
 * quarter of bytes it saves.
 */
export class HpackEncoder {
  private readonly table = new SearchableTable(DEFAULT_HEADER_TABLE_BYTES);
  private readonly ceilingBytes: number;
  /** Sizes to announce at the start of the next block: the least since the last block, and the present one. -1: none. */
  private leastAnnounce = -1;
  private lastAnnounce = -1;
  private out: Buffer = Buffer.alloc(0);
  private at = 0;

  /** `ceilingBytes`: the most memory we give the table, whatever the peer allows. */
  constructor(ceilingBytes: number) {
    this.ceilingBytes = ceilingBytes;
    if (ceilingBytes < DEFAULT_HEADER_TABLE_BYTES) this.setPeerTableBytes(DEFAULT_HEADER_TABLE_BYTES);
  }

  /** The peer's SETTINGS_HEADER_TABLE_SIZE. */
  setPeerTableBytes(bytes: number): void {
    const size = Math.min(bytes, this.ceilingBytes);
    if (size === this.table.maxBytes && this.lastAnnounce < 0) return;
    this.leastAnnounce = this.leastAnnounce < 0 ? size : Math.min(this.leastAnnounce, size);
    this.lastAnnounce = size;
    this.table.resize(size);
  }

  /** The most octets that `encode` can make of `headers`. */
  bound(headers: HeaderList): number {
    let bytes = BLOCK_OVERHEAD_BYTES;
    for (let i = 0; i < headers.length; i++) {
      bytes += headers[i]![0].length + headers[i]![1].length + FIELD_OVERHEAD_BYTES;
    }
    return bytes;
  }

  /** Writes the field block at `at`, where `bound(headers)` octets are free; returns its end. Strings are latin1. */
  encode(headers: HeaderList, out: Buffer, at: number): number {
    this.out = out;
    this.at = at;
    this.announceSize();
    for (let i = 0; i < headers.length; i++) this.field(headers[i]!);
    return this.at;
  }

  private announceSize(): void {
    if (this.lastAnnounce < 0) return;
    if (this.leastAnnounce < this.lastAnnounce) this.integer(SIZE_UPDATE, this.leastAnnounce);
    this.integer(SIZE_UPDATE, this.lastAnnounce);
    this.leastAnnounce = -1;
    this.lastAnnounce = -1;
  }

  private field(field: HeaderField): void {
    const name = field[0];
    const value = field[1];
    const fixed = STATIC_INDEX.get(name);
    const learnt = this.table.names.get(name);
    const nameIndex =
      fixed !== undefined ? fixed.place : learnt !== undefined ? this.indexOf(learnt.place) : 0;
    if (field[2] === true || SENSITIVE_NAMES.has(name)) {
      this.literal(NEVER_INDEXED, nameIndex, name, value, false);
      return;
    }
    const index = fixed?.byValue.get(value);
    if (index !== undefined) {
      this.integer(INDEXED, index);
      return;
    }
    const insertion = learnt?.byValue.get(value);
    if (insertion !== undefined) {
      this.integer(INDEXED, this.indexOf(insertion));
    } else if (this.isWorthIndexing(nameIndex, name, value)) {
      this.literal(WITH_INDEXING, nameIndex, name, value, true);
      this.table.add(field);
    } else {
      this.literal(WITHOUT_INDEXING, nameIndex, name, value, false);
    }
  }

  /** A value above a quarter of the table would cost more other entries than it saves. */
  private isWorthIndexing(nameIndex: number, name: string, value: string): boolean {
    if (nameIndex !== 0 && UNIQUE_NAMES.has(name)) return false;
    return fieldBytes(name.length, value.length) <= this.table.maxBytes >>> 2;
  }

  private indexOf(insertion: number): number {
    return FIRST_DYNAMIC_INDEX + this.table.inserted - insertion;
  }

  private literal(
    form: { readonly octet: number; readonly mask: number },
    nameIndex: number,
    name: string,
    value: string,
    isCoded: boolean,
  ): void {
    this.integer(form, nameIndex);
    if (nameIndex === 0) this.string(name, isCoded);
    this.string(value, isCoded);
  }

  private string(text: string, isCoded: boolean): void {
    const codedBytes = isCoded ? huffmanBytes(text) : text.length;
    if (codedBytes < text.length) {
      this.integer(CODED_STRING, codedBytes);
      this.at = huffmanEncode(text, this.out, this.at);
      return;
    }
    this.integer(RAW_STRING, text.length);
    this.out.write(text, this.at, text.length, 'latin1');
    this.at += text.length;
  }

  private integer(form: { readonly octet: number; readonly mask: number }, value: number): void {
    const { octet, mask } = form;
    if (value < mask) {
      this.out[this.at++] = octet | value;
      return;
    }
    this.out[this.at++] = octet | mask;
    let rest = value - mask;
    for (; rest >= 0x80; rest = Math.floor(rest / 128)) this.out[this.at++] = 0x80 | (rest & 0x7f);
    this.out[this.at++] = rest;
  }
}
