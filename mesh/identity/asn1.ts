import type { asn1 as Asn1Types } from 'node-forge';
import asn1 from 'node-forge/lib/asn1.js';

/** A piece of DER still to be written. Thin names over node-forge's asn1, whose strings hold one byte per character. */
export type Node = Asn1Types.Asn1;

const { UNIVERSAL, CONTEXT_SPECIFIC } = asn1.Class;

export function sequence(...items: Node[]): Node {
  return asn1.create(UNIVERSAL, asn1.Type.SEQUENCE, true, items);
}

export function set(...items: Node[]): Node {
  return asn1.create(UNIVERSAL, asn1.Type.SET, true, items);
}

export function oid(dotted: string): Node {
  return asn1.create(UNIVERSAL, asn1.Type.OID, false, asn1.oidToDer(dotted).getBytes());
}

/** A non-negative INTEGER from its minimal big-endian bytes (the top bit clear). */
export function integer(bytes: Buffer): Node {
  return asn1.create(UNIVERSAL, asn1.Type.INTEGER, false, bytes.toString('latin1'));
}

export function boolean(value: boolean): Node {
  return asn1.create(UNIVERSAL, asn1.Type.BOOLEAN, false, value ? '\xff' : '\x00');
}

export function utf8(text: string): Node {
  return asn1.create(UNIVERSAL, asn1.Type.UTF8, false, Buffer.from(text, 'utf8').toString('latin1'));
}

export function octetString(bytes: Buffer): Node {
  return asn1.create(UNIVERSAL, asn1.Type.OCTETSTRING, false, bytes.toString('latin1'));
}

/** `unusedBits` of the last byte. */
export function bitString(bytes: Buffer, unusedBits = 0): Node {
  const value = String.fromCharCode(unusedBits) + bytes.toString('latin1');
  return asn1.create(UNIVERSAL, asn1.Type.BITSTRING, false, value);
}

/** [n] around other elements. */
export function tagged(n: number, ...items: Node[]): Node {
  return asn1.create(CONTEXT_SPECIFIC, n as Asn1Types.Type, true, items);
}

/** [n] IMPLICIT, primitive. */
export function taggedBytes(n: number, bytes: Buffer): Node {
  return asn1.create(CONTEXT_SPECIFIC, n as Asn1Types.Type, false, bytes.toString('latin1'));
}

/** UTCTime before 2050, GeneralizedTime from then on (RFC 5280 4.1.2.5); whole seconds. */
export function time(unixMs: number): Node {
  const digits = new Date(unixMs).toISOString().replace(/[-:T]|\.\d+/g, '');
  const isShort = new Date(unixMs).getUTCFullYear() < 2050;
  const type = isShort ? asn1.Type.UTCTIME : asn1.Type.GENERALIZEDTIME;
  return asn1.create(UNIVERSAL, type, false, isShort ? digits.slice(2) : digits);
}

/** An element that is there as DER already. */
export function existing(der: Buffer): Node {
  return asn1.fromDer(der.toString('latin1'));
}

export function toDer(node: Node): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1');
}

/** Dotted text of an OID's contents bytes. */
export function oidText(contents: Buffer): string {
  return asn1.derToOid(contents.toString('latin1'));
}
