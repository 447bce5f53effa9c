import { ConnectionError } from '../errors.js';
import { ErrorCode } from '../types.js';

/**
 * The Huffman code of HPACK (RFC 7541 section 5.2, appendix B). It is canonical (codes of one length are consecutive, in symbol order), so the
 * lengths alone define it; the decoder is a state machine that takes 4 bits a step.
 */

// biome-ignore format: the table of appendix B, 16 symbols a line
const CODE_LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30, // EOS
];
const EOS = 256;
const CODES = assignCodes();
const BIT_LENGTHS = Uint8Array.from(CODE_LENGTHS);

function assignCodes(): Uint32Array {
  const symbols = [...CODE_LENGTHS.keys()].sort((a, b) => CODE_LENGTHS[a]! - CODE_LENGTHS[b]! || a - b);
  const codes = new Uint32Array(CODE_LENGTHS.length);
  let code = 0;
  let length = CODE_LENGTHS[symbols[0]!]!;
  for (const symbol of symbols) {
    code *= 2 ** (CODE_LENGTHS[symbol]! - length);
    length = CODE_LENGTHS[symbol]!;
    codes[symbol] = code++;
  }
  return codes;
}

/** Bytes that `text` (latin1) takes in Huffman code. */
export function huffmanBytes(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += BIT_LENGTHS[text.charCodeAt(i)]!;
  return (bits + 7) >>> 3;
}

/** Writes `text` (latin1) at `at`; returns the end. The space is known by `huffmanBytes`. */
export function huffmanEncode(text: string, bytes: Buffer, at: number): number {
  let held = 0;
  let heldBits = 0;
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i);
    let code = CODES[symbol]!;
    let bits = BIT_LENGTHS[symbol]!;
    if (bits > 24) {
      // 7 held bits and 24 new ones are what an int32 holds: long codes go in two parts
      held = (held << (bits - 16)) | (code >>> 16);
      heldBits += bits - 16;
      for (; heldBits >= 8; heldBits -= 8) bytes[at++] = held >>> (heldBits - 8);
      code &= 0xffff;
      bits = 16;
    }
    held = (held << bits) | code;
    heldBits += bits;
    for (; heldBits >= 8; heldBits -= 8) bytes[at++] = held >>> (heldBits - 8);
  }
  if (heldBits > 0) bytes[at++] = (held << (8 - heldBits)) | (0xff >>> heldBits);
  return at;
}

/** One step of the state machine: next state (bits 0-7), symbol (8-15), and flags. */
const EMITS = 1 << 16;
/** The string may end here: fewer than 8 bits since the last symbol, all ones. */
const MAY_END = 1 << 17;
const FAILS = 1 << 18;
const STEPS = buildSteps();

interface Tree {
  /** children[2 * node + bit]: inner node, or -1 - symbol for a leaf. */
  readonly children: number[];
  /** Nodes on the all-ones path at depth 0 to 7. */
  readonly mayEnd: Set<number>;
}

function buildTree(): Tree {
  const children = [0, 0];
  for (let symbol = 0; symbol <= EOS; symbol++) {
    let node = 0;
    for (let bit = CODE_LENGTHS[symbol]! - 1; bit >= 0; bit--) {
      const slot = 2 * node + ((CODES[symbol]! >>> bit) & 1);
      if (bit === 0) {
        children[slot] = -1 - symbol;
      } else if (children[slot] === 0) {
        node = children.length / 2;
        children[slot] = node;
        children.push(0, 0);
      } else {
        node = children[slot]!;
      }
    }
  }
  const mayEnd = new Set<number>();
  for (let depth = 0, node = 0; depth < 8; depth++, node = children[2 * node + 1]!) mayEnd.add(node);
  return { children, mayEnd };
}

function buildSteps(): Int32Array {
  const { children, mayEnd } = buildTree();
  const steps = new Int32Array((children.length / 2) * 16);
  for (let node = 0; node < children.length / 2; node++) {
    for (let nibble = 0; nibble < 16; nibble++) {
      steps[node * 16 + nibble] = walk(children, mayEnd, node, nibble);
    }
  }
  return steps;
}

/** Codes have at least 5 bits, so a nibble ends at most one. */
function walk(children: number[], mayEnd: Set<number>, start: number, nibble: number): number {
  let node = start;
  let emitted = 0;
  for (let bit = 3; bit >= 0; bit--) {
    const next = children[2 * node + ((nibble >>> bit) & 1)]!;
    if (next === -1 - EOS) return FAILS;
    if (next < 0) emitted = EMITS | ((-1 - next) << 8);
    node = Math.max(next, 0);
  }
  return node | emitted | (mayEnd.has(node) ? MAY_END : 0);
}

/**
 * Decodes [start, end) of `bytes` into `out` from 0 on and returns the symbols written; `out` needs room for `huffmanMaxSymbols`.
 * Throws COMPRESSION_ERROR for EOS in the string and for padding that is too long or not all ones.
 */
export function huffmanDecode(bytes: Buffer, start: number, end: number, out: Buffer): number {
  let step = MAY_END;
  let written = 0;
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    step = STEPS[((step & 0xff) << 4) | (byte >>> 4)]!;
    if ((step & EMITS) !== 0) out[written++] = step >>> 8;
    if ((step & FAILS) !== 0) throw new ConnectionError(ErrorCode.COMPRESSION_ERROR, 'EOS in a string');
    step = STEPS[((step & 0xff) << 4) | (byte & 15)]!;
    if ((step & EMITS) !== 0) out[written++] = step >>> 8;
    if ((step & FAILS) !== 0) throw new ConnectionError(ErrorCode.COMPRESSION_ERROR, 'EOS in a string');
  }
  if ((step & MAY_END) === 0) throw new ConnectionError(ErrorCode.COMPRESSION_ERROR, 'bad Huffman padding');
  return written;
}

/** The most symbols that `bytes` of Huffman code can hold (5 bits is the shortest). */
export function huffmanMaxSymbols(bytes: number): number {
  return Math.ceil((bytes * 8) / 5);
}
