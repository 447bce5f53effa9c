/**
 * Domain names (RFC 1035 3.1, 4.1.4). As text: labels in lower case joined by dots, without the last dot; a dot or backslash within a label is
 * escaped by a backslash, a byte that is not printable is `\ddd`. The root is ''.
 */
import { DnsFormatError } from './types.js';

const maxNameBytes = 255;
const maxLabelBytes = 63;
const DOT = 0x2e;
const BACKSLASH = 0x5c;

export interface ReadName {
  readonly name: string;
  /** Where the next field begins. */
  readonly end: number;
}

/** The name at `at`, its pointers followed: each must lead backwards, so that reading ends. Throws DnsFormatError. */
export function readName(message: Uint8Array, at: number): ReadName {
  const labels: string[] = [];
  let bytes = 1;
  let end = -1;
  let next = at;
  let before = at;
  for (;;) {
    const length = message[next];
    if (length === undefined) throw new DnsFormatError('a name ends outside the message');
    if (length === 0) break;
    if ((length & 0xc0) === 0xc0) {
      const target = ((length & 0x3f) << 8) | (message[next + 1] ?? 0xff);
      if (next + 1 >= message.length || target >= before)
        throw new DnsFormatError('a name points not backwards');
      if (end < 0) end = next + 2;
      before = next = target;
      continue;
    }
    bytes += length + 1;
    if (length > maxLabelBytes || bytes > maxNameBytes) throw new DnsFormatError('a name is too long');
    if (next + 1 + length > message.length) throw new DnsFormatError('a label ends outside the message');
    labels.push(labelText(message, next + 1, length));
    next += 1 + length;
  }
  return { name: labels.join('.'), end: end < 0 ? next + 1 : end };
}

/** The wire form, not compressed. Throws DnsFormatError for text that is no name. */
export function encodeName(name: string): Buffer {
  if (name === '') return Buffer.alloc(1);
  const out = Buffer.alloc(maxNameBytes + 1);
  let at = 1;
  let labelAt = 0;
  const endLabel = () => {
    const length = at - labelAt - 1;
    if (length < 1 || length > maxLabelBytes) throw new DnsFormatError(`a label of ${length} bytes: ${name}`);
    out[labelAt] = length;
    labelAt = at++;
  };
  for (let i = 0; i < name.length; i++) {
    if (at > maxNameBytes) throw new DnsFormatError(`too long for a name: ${name}`);
    const code = name.charCodeAt(i);
    if (code === DOT) endLabel();
    else if (code !== BACKSLASH) out[at++] = lower(code);
    else if (/^\d{3}$/.test(name.slice(i + 1, i + 4))) {
      out[at++] = lower(Number(name.slice(i + 1, i + 4)));
      i += 3;
    } else out[at++] = lower(name.charCodeAt(++i));
  }
  endLabel();
  if (at > maxNameBytes) throw new DnsFormatError(`too long for a name: ${name}`);
  return out.subarray(0, at);
}

/** Lower case, without a last dot: as names are compared. For names in configuration, which need no escapes. */
export function canonicalName(text: string): string {
  return (text.endsWith('.') ? text.slice(0, -1) : text).toLowerCase();
}

function labelText(message: Uint8Array, at: number, length: number): string {
  let text = '';
  for (let i = at; i < at + length; i++) {
    const code = lower(message[i]!);
    if (code === DOT || code === BACKSLASH) text += `\\${String.fromCharCode(code)}`;
    else if (code > 0x20 && code < 0x7f) text += String.fromCharCode(code);
    else text += `\\${String(code).padStart(3, '0')}`;
  }
  return text;
}

/** Of ASCII only (RFC 4343). */
function lower(code: number): number {
  return code >= 0x41 && code <= 0x5a ? code + 0x20 : code;
}
