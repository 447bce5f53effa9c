import { createPublicKey } from 'node:crypto';
import { messageOf } from '../common/errors.js';
import * as asn1 from './asn1.js';
import { DerReader, Tag } from './der-reader.js';
import { IdentityError } from './errors.js';
import { isSignedWith } from './keys.js';
import { readCertificate, readSerial } from './x509-read.js';

/** A certificate revocation list (RFC 5280 5) of one issuer. */
export interface Crl {
  /** The issuer's Name, whole. */
  readonly issuer: Buffer;
  /** Unix milliseconds. */
  readonly thisUpdateMs: number;
  /** Null: it says nothing of its successor. */
  readonly nextUpdateMs: number | null;
  /** As `CertificateInfo.serial`. */
  readonly serials: readonly string[];
  /** What is signed, how, and the signature. */
  readonly signed: Buffer;
  readonly algorithm: string;
  readonly signature: Buffer;
}

const BLOCK = /-----BEGIN X509 CRL-----\s*([A-Za-z0-9+/=\s]+?)-----END X509 CRL-----/g;
const SEQUENCE_BYTE = 0x30;

/** Every list in PEM text (other blocks are passed over), or the one that is DER. Throws IdentityError BAD_CRL, also where there is none. */
export function readCrls(bytes: Buffer): Crl[] {
  try {
    if (bytes[0] === SEQUENCE_BYTE) return [read(bytes)];
    const text = bytes.toString('latin1');
    const blocks = [...text.matchAll(BLOCK)];
    if (blocks.length === 0 || text.split('-----BEGIN X509 CRL-----').length - 1 !== blocks.length)
      throw new Error('no complete PEM block "X509 CRL"');
    return blocks.map(([, body]) => read(Buffer.from(body!, 'base64')));
  } catch (error) {
    throw new IdentityError('BAD_CRL', `not a certificate revocation list: ${messageOf(error)}`, {}, error);
  }
}

/** Whether this certificate (DER, a CA's) is the list's issuer and its key has signed it. */
export function isSignedBy(crl: Crl, certificate: Buffer): boolean {
  const { subject, isCa, publicKey } = readCertificate(certificate);
  if (!isCa || !subject.equals(crl.issuer)) return false;
  const key = createPublicKey({ key: publicKey, format: 'der', type: 'spki' });
  return isSignedWith(crl.algorithm, crl.signed, key, crl.signature);
}

function read(der: Buffer): Crl {
  const file = new DerReader(der);
  const list = file.enter(Tag.SEQUENCE);
  file.expectEnd();
  const signed = list.element(Tag.SEQUENCE);
  const algorithm = asn1.oidText(list.enter(Tag.SEQUENCE).contents(Tag.OID));
  const signature = list.contents(Tag.BIT_STRING).subarray(1);
  list.expectEnd();
  const body = new DerReader(signed).enter(Tag.SEQUENCE);
  body.skipOptional(Tag.INTEGER);
  body.enter(Tag.SEQUENCE);
  const issuer = body.element(Tag.SEQUENCE);
  const thisUpdateMs = body.time();
  const hasNext = body.nextIs(Tag.UTC_TIME) || body.nextIs(Tag.GENERALIZED_TIME);
  const nextUpdateMs = hasNext ? body.time() : null;
  const serials = body.nextIs(Tag.SEQUENCE) ? readEntries(body.enter(Tag.SEQUENCE)) : [];
  if (body.nextIs(EXTENSIONS)) refuseCritical(body.enter(EXTENSIONS).enter(Tag.SEQUENCE));
  body.expectEnd();
  return { issuer, thisUpdateMs, nextUpdateMs, serials, signed, algorithm, signature };
}

const EXTENSIONS = 0xa0;

function readEntries(list: DerReader): string[] {
  const serials: string[] = [];
  while (!list.isAtEnd) {
    const entry = list.enter(Tag.SEQUENCE);
    serials.push(readSerial(entry));
    entry.time();
    if (!entry.isAtEnd) refuseCritical(entry.enter(Tag.SEQUENCE));
    entry.expectEnd();
  }
  return serials;
}

/** A critical extension changes what the list means (delta, indirect, parted): RFC 5280 5.2 forbids to use it unread. */
function refuseCritical(extensions: DerReader): void {
  while (!extensions.isAtEnd) {
    const extension = extensions.enter(Tag.SEQUENCE);
    const oid = asn1.oidText(extension.contents(Tag.OID));
    if (extension.nextIs(Tag.BOOLEAN)) throw new Error(`critical extension ${oid} is not read`);
    extension.enter(Tag.OCTET_STRING);
  }
}
