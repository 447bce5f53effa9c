/** Tags of the DER that certificates use (X.690). */
export const Tag = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  OID: 0x06,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  SEQUENCE: 0x30,
  SET: 0x31,
} as const;

/** What a DerReader throws: the bytes are not the strict DER that the caller asks for. */
export class DerError extends Error {}

/**
 * Walks strict DER in place: definite, minimal lengths, single-byte tags, nothing past the end. A cursor over `bytes[at, end)`;
 * no tree is built (a leaf certificate is read in a few microseconds, node-forge's tree takes some hundred).
 */
export class DerReader {
  readonly bytes: Buffer;
  at: number;
  readonly end: number;

  constructor(bytes: Buffer, at = 0, end = bytes.length) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }

  get isAtEnd(): boolean {
    return this.at === this.end;
  }

  /** Is the next element there, with this tag? */
  nextIs(tag: number): boolean {
    return this.at < this.end && this.bytes[this.at] === tag;
  }

  /** Steps over the next element and returns a reader of its contents. */
  enter(tag: number): DerReader {
    if (this.at >= this.end) throw new DerError(`wanted tag 0x${tag.toString(16)}, found the end`);
    const found = this.bytes[this.at]!;
    if (found !== tag) throw new DerError(`wanted tag 0x${tag.toString(16)}, found 0x${found.toString(16)}`);
    const start = this.at + 1 + this.lengthBytes();
    const length = this.readLength();
    if (length > this.end - start) throw new DerError('an element reaches past its container');
    this.at = start + length;
    return new DerReader(this.bytes, start, this.at);
  }

  /** The next element as a whole, header included; steps over it. */
  element(tag: number): Buffer {
    const from = this.at;
    this.enter(tag);
    return this.bytes.subarray(from, this.at);
  }

  /** Contents of the next element; steps over it. */
  contents(tag: number): Buffer {
    const inner = this.enter(tag);
    return this.bytes.subarray(inner.at, inner.end);
  }

  /** Steps over the next element if it has this tag. */
  skipOptional(tag: number): void {
    if (this.nextIs(tag)) this.enter(tag);
  }

  expectEnd(): void {
    if (!this.isAtEnd) throw new DerError('bytes after the end');
  }

  /** UTCTime or GeneralizedTime in RFC 5280's only form (…Z, with seconds), as Unix milliseconds. */
  time(): number {
    const isShort = this.nextIs(Tag.UTC_TIME);
    const text = this.contents(isShort ? Tag.UTC_TIME : Tag.GENERALIZED_TIME).toString('latin1');
    const parts = (isShort ? SHORT_TIME : LONG_TIME).exec(text);
    if (parts === null) throw new DerError('a time is not in the form of RFC 5280');
    const [year, month, day, hour, minute, second] = parts.slice(1).map(Number) as number[];
    const fullYear = isShort ? year! + (year! >= 50 ? 1900 : 2000) : year!;
    return Date.UTC(fullYear, month! - 1, day, hour, minute, second);
  }

  /** Bytes of the length field after the tag. */
  private lengthBytes(): number {
    const first = this.bytes[this.at + 1]!;
    return first < 0x80 ? 1 : 1 + (first & 0x7f);
  }

  private readLength(): number {
    if (this.at + 1 >= this.end) throw new DerError('an element has no length');
    const first = this.bytes[this.at + 1]!;
    if (first < 0x80) return first;
    const count = first & 0x7f;
    // 3 bytes: 16 MiB, far above any certificate
    if (count === 0 || count > 3 || this.at + 2 + count > this.end) throw new DerError('bad length');
    const length = this.bytes.readUIntBE(this.at + 2, count);
    if (length < 0x80 || this.bytes[this.at + 2] === 0) throw new DerError('a length is not minimal');
    return length;
  }
}

const SHORT_TIME = /^(\d\d)(0[1-9]|1[0-2])([0-3]\d)([01]\d|2[0-3])([0-5]\d)([0-5]\d)Z$/;
const LONG_TIME = /^(\d{4})(0[1-9]|1[0-2])([0-3]\d)([01]\d|2[0-3])([0-5]\d)([0-5]\d)Z$/;
