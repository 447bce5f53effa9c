import { ConnectionError } from '../errors.js';
import { ErrorCode } from '../types.js';
import { DEFAULT_HEADER_TABLE_BYTES } from '../wire/frame.js';
import { huffmanDecode, huffmanMaxSymbols } from './huffman.js';
import { DynamicTable, fieldBytes, type HeaderField, STATIC_TABLE } from './table.js';

export interface HpackDecoderOptions {
  /** SETTINGS_MAX_HEADER_LIST_SIZE that we announced. */
  readonly maxHeaderListBytes: number;
}

/** Integers above this are of no use to any peer; five continuation bytes would reach it. */
const MAX_INTEGER = 0x0fffffff;
/** A change down and up again between two blocks is announced by two updates (RFC 7541 section 4.2). */
const MAX_SIZE_UPDATES_PER_BLOCK = 2;
const KEPT_SCRATCH_BYTES = 1024;

function fail(reason: string): never {
  throw new ConnectionError(ErrorCode.COMPRESSION_ERROR, reason);
}

/** HPACK decoder of one connection (RFC 7541). Every failure is a connection error COMPRESSION_ERROR. */
export class HpackDecoder {
  private readonly options: HpackDecoderOptions;
  private readonly table = new DynamicTable(DEFAULT_HEADER_TABLE_BYTES);
  /** What the peer may raise the table to: our acknowledged SETTINGS_HEADER_TABLE_SIZE. */
  private tableCeilingBytes = DEFAULT_HEADER_TABLE_BYTES;
  /** Cursor of the block being read. */
  private at = 0;
  private scratch = Buffer.alloc(0);

  constructor(options: HpackDecoderOptions) {
    this.options = options;
  }

  /** Our SETTINGS_HEADER_TABLE_SIZE was acknowledged: if it is below the table's size, the next block must begin with an update. */
  setTableCeiling(bytes: number): void {
    this.tableCeilingBytes = bytes;
  }

  /**
   * One complete field block. Null when the list exceeds `maxHeaderListBytes`, counted while decoding; the block is then still read to its
   * end, so that the table stays in step with the peer's.
   */
  decode(bytes: Buffer, start: number, end: number): HeaderField[] | null {
    const fields: HeaderField[] = [];
    let listBytes = 0;
    this.at = this.readSizeUpdates(bytes, start, end);
    while (this.at < end) {
      const field = this.readField(bytes, end);
      listBytes += fieldBytes(field[0].length, field[1].length);
      if (listBytes <= this.options.maxHeaderListBytes) fields.push(field);
    }
    if (this.scratch.length > KEPT_SCRATCH_BYTES) this.scratch = Buffer.alloc(0);
    return listBytes <= this.options.maxHeaderListBytes ? fields : null;
  }

  private readSizeUpdates(bytes: Buffer, start: number, end: number): number {
    this.at = start;
    let updates = 0;
    while (this.at < end && (bytes[this.at]! & 0xe0) === 0x20) {
      const size = this.readInteger(bytes, end, 0x1f);
      if (size > this.tableCeilingBytes) fail(`table size update to ${size} bytes`);
      if (++updates > MAX_SIZE_UPDATES_PER_BLOCK) fail('too many table size updates');
      this.table.resize(size);
    }
    if (this.table.maxBytes > this.tableCeilingBytes) fail('no table size update after our SETTINGS');
    return this.at;
  }

  private readField(bytes: Buffer, end: number): HeaderField {
    const first = bytes[this.at]!;
    if ((first & 0x80) !== 0) return this.field(this.readInteger(bytes, end, 0x7f));
    if ((first & 0x40) !== 0) {
      const name = this.readName(bytes, end, 0x3f);
      const field: HeaderField = [name, this.readString(bytes, end)];
      this.table.add(field);
      return field;
    }
    if ((first & 0x20) !== 0) fail('table size update within a block');
    const name = this.readName(bytes, end, 0x0f);
    const value = this.readString(bytes, end);
    return (first & 0x10) === 0 ? [name, value] : [name, value, true];
  }

  private field(index: number): HeaderField {
    const field = index <= STATIC_TABLE.length ? STATIC_TABLE[index - 1] : this.table.at(index - 62);
    return field ?? fail(`no table entry ${index}`);
  }

  private readName(bytes: Buffer, end: number, mask: number): string {
    const index = this.readInteger(bytes, end, mask);
    return index === 0 ? this.readString(bytes, end) : this.field(index)[0];
  }

  private readString(bytes: Buffer, end: number): string {
    if (this.at >= end) fail('the block ends within a field');
    const isHuffman = (bytes[this.at]! & 0x80) !== 0;
    const length = this.readInteger(bytes, end, 0x7f);
    const start = this.at;
    if (length > end - start) fail('a string ends beyond its block');
    this.at = start + length;
    if (!isHuffman) return bytes.toString('latin1', start, start + length);
    const most = huffmanMaxSymbols(length);
    if (this.scratch.length < most) this.scratch = Buffer.allocUnsafeSlow(Math.max(most, 256));
    return this.scratch.toString('latin1', 0, huffmanDecode(bytes, start, start + length, this.scratch));
  }

  /** RFC 7541 section 5.1; the cursor stands on the byte with the prefix. */
  private readInteger(bytes: Buffer, end: number, mask: number): number {
    let value = bytes[this.at++]! & mask;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      if (this.at >= end) fail('the block ends within an integer');
      const byte = bytes[this.at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (value > MAX_INTEGER || shift > 28) fail('integer too large');
      if ((byte & 0x80) === 0) return value;
    }
  }
}
