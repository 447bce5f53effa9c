import { STATIC_TABLE } from '../hpack/table.js';
import type { HeaderList } from '../types.js';

/** HPACK written as plainly as RFC 7541 reads, slow and strict enough: the twin of the fast one in property tests. No Huffman. */
export class NaiveHpack {
  /** Newest first. */
  private table: (readonly [string, string])[] = [];
  private maxBytes = 4096;

  /** How each field goes out is the caller's: 'index' uses a table entry if there is one. */
  encode(headers: HeaderList, form: (i: number) => 'index' | 'add' | 'plain' | 'never'): Buffer {
    const parts: Buffer[] = [];
    for (const [i, [name, value]] of headers.entries()) {
      const entries = [...STATIC_TABLE, ...this.table];
      const found = entries.findIndex(([n, v]) => n === name && v === value) + 1;
      const nameFound = entries.findIndex(([n]) => n === name) + 1;
      const how = form(i);
      if (how === 'index' && found > 0) {
        parts.push(this.integer(0x80, 7, found));
        continue;
      }
      const [octet, prefix] = how === 'never' ? [0x10, 4] : how === 'plain' ? [0, 4] : [0x40, 6];
      parts.push(this.integer(octet!, prefix!, nameFound));
      if (nameFound === 0) parts.push(this.string(name));
      parts.push(this.string(value));
      if (octet === 0x40) this.add(name, value);
    }
    return Buffer.concat(parts);
  }

  resize(bytes: number): Buffer {
    this.maxBytes = bytes;
    this.evict();
    return this.integer(0x20, 5, bytes);
  }

  private add(name: string, value: string): void {
    this.table.unshift([name, value]);
    this.evict();
  }

  private evict(): void {
    while (this.table.reduce((sum, [n, v]) => sum + n.length + v.length + 32, 0) > this.maxBytes)
      this.table.pop();
  }

  private string(text: string): Buffer {
    return Buffer.concat([this.integer(0, 7, text.length), Buffer.from(text, 'latin1')]);
  }

  private integer(octet: number, prefix: number, value: number): Buffer {
    const mask = 2 ** prefix - 1;
    if (value < mask) return Buffer.from([octet | value]);
    const octets = [octet | mask];
    let rest = value - mask;
    for (; rest >= 128; rest = Math.floor(rest / 128)) octets.push(128 + (rest % 128));
    return Buffer.from([...octets, rest]);
  }
}

/** Huffman decoding bit by bit over a list of [code, length] per symbol. */
export function naiveHuffmanDecode(bytes: Buffer, symbolOf: ReadonlyMap<string, number>): string {
  let code = '';
  let text = '';
  for (const byte of bytes) {
    for (const bit of byte.toString(2).padStart(8, '0')) {
      code += bit;
      const symbol = symbolOf.get(code);
      if (symbol === undefined) continue;
      if (symbol === 256) throw new Error('EOS');
      text += String.fromCharCode(symbol);
      code = '';
    }
  }
  if (code.length > 7 || code.includes('0')) throw new Error('padding');
  return text;
}
