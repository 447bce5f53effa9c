import type { HeaderList } from '../types.js';

export type HeaderField = HeaderList[number];

/** RFC 7541 appendix A; index 1 is the first. */
export const STATIC_TABLE: readonly HeaderField[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  [':status', '200'],
  [':status', '204'],
  [':status', '206'],
  [':status', '304'],
  [':status', '400'],
  [':status', '404'],
  [':status', '500'],
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ['accept-language', ''],
  ['accept-ranges', ''],
  ['accept', ''],
  ['access-control-allow-origin', ''],
  ['age', ''],
  ['allow', ''],
  ['authorization', ''],
  ['cache-control', ''],
  ['content-disposition', ''],
  ['content-encoding', ''],
  ['content-language', ''],
  ['content-length', ''],
  ['content-location', ''],
  ['content-range', ''],
  ['content-type', ''],
  ['cookie', ''],
  ['date', ''],
  ['etag', ''],
  ['expect', ''],
  ['expires', ''],
  ['from', ''],
  ['host', ''],
  ['if-match', ''],
  ['if-modified-since', ''],
  ['if-none-match', ''],
  ['if-range', ''],
  ['if-unmodified-since', ''],
  ['last-modified', ''],
  ['link', ''],
  ['location', ''],
  ['max-forwards', ''],
  ['proxy-authenticate', ''],
  ['proxy-authorization', ''],
  ['range', ''],
  ['referer', ''],
  ['refresh', ''],
  ['retry-after', ''],
  ['server', ''],
  ['set-cookie', ''],
  ['strict-transport-security', ''],
  ['transfer-encoding', ''],
  ['user-agent', ''],
  ['vary', ''],
  ['via', ''],
  ['www-authenticate', ''],
];

/** Size of a field as HPACK and SETTINGS_MAX_HEADER_LIST_SIZE count it (RFC 7541 section 4.1). Strings are latin1: a character is an octet. */
export function fieldBytes(nameBytes: number, valueBytes: number): number {
  return nameBytes + valueBytes + 32;
}

/**
 * The dynamic table (RFC 7541 section 2.3.2): a FIFO by bytes. Entries carry the number of their insertion, which stays; the HPACK index
 * of an entry is 62 + (newest insertion - its insertion).
 */
export class DynamicTable {
  private ring: (HeaderField | undefined)[] = [];
  private count = 0;
  private bytes = 0;
  private limitBytes: number;
  /** Number of insertions so far; the newest entry has this number. */
  inserted = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get length(): number {
    return this.count;
  }

  get maxBytes(): number {
    return this.limitBytes;
  }

  get usedBytes(): number {
    return this.bytes;
  }

  /** Entry by age, 0 the newest; undefined beyond the oldest. */
  at(age: number): HeaderField | undefined {
    return age < this.count ? this.ring[(this.inserted - age) & (this.ring.length - 1)] : undefined;
  }

  /** Makes room and inserts; a field larger than the table empties it and is not kept (section 4.4). */
  add(field: HeaderField): void {
    const size = fieldBytes(field[0].length, field[1].length);
    this.evictTo(this.limitBytes - size);
    if (size > this.limitBytes) return;
    if (this.count === this.ring.length) this.growRing();
    this.inserted++;
    this.ring[this.inserted & (this.ring.length - 1)] = field;
    this.count++;
    this.bytes += size;
  }

  resize(limitBytes: number): void {
    this.limitBytes = limitBytes;
    this.evictTo(limitBytes);
  }

  /** For indexes over the table: `field`, inserted as number `insertion`, goes. */
  protected evicted(_field: HeaderField, _insertion: number): void {}

  private evictTo(limitBytes: number): void {
    while (this.count > 0 && this.bytes > limitBytes) {
      const insertion = this.inserted - this.count + 1;
      const slot = insertion & (this.ring.length - 1);
      const field = this.ring[slot]!;
      this.ring[slot] = undefined;
      this.count--;
      this.bytes -= fieldBytes(field[0].length, field[1].length);
      this.evicted(field, insertion);
    }
  }

  /** The ring's length is a power of two, so that insertion numbers map to slots by a mask. */
  private growRing(): void {
    const grown = new Array<HeaderField | undefined>(Math.max(8, this.ring.length * 2)).fill(undefined);
    for (let age = 0; age < this.count; age++) {
      grown[(this.inserted - age) & (grown.length - 1)] = this.at(age);
    }
    this.ring = grown;
  }
}
