import { messageOf } from '../common/errors.js';
import { DerReader, Tag } from './der-reader.js';
import { IdentityError } from './errors.js';

/** What the mesh needs to know of a certificate. Buffers are views into the DER that was read. */
export interface CertificateInfo {
  /** Hexadecimal, as openssl prints it. */
  readonly serial: string;
  /** Names, whole. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  /** Unix milliseconds, inclusive. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly isCa: boolean;
  /** URI subject alternative names, in order. */
  readonly uris: readonly string[];
  readonly subjectKeyId: Buffer | null;
  /** SubjectPublicKeyInfo, whole. */
  readonly publicKey: Buffer;
}

/** Extension OIDs (RFC 5280 4.2.1) as the hexadecimal of their contents. */
const SUBJECT_ALT_NAME = 0x551d11;
const BASIC_CONSTRAINTS = 0x551d13;
const SUBJECT_KEY_ID = 0x551d0e;
const EXTENSIONS = 0xa3;
const URI_NAME = 0x86;

interface Extensions {
  isCa: boolean;
  uris: string[];
  subjectKeyId: Buffer | null;
}

/** Reads one X.509 v3 certificate (RFC 5280 4.1). Nothing is verified. Throws IdentityError BAD_CERTIFICATE. */
export function readCertificate(der: Buffer): CertificateInfo {
  try {
    return read(der);
  } catch (error) {
    throw new IdentityError('BAD_CERTIFICATE', `not an X.509 certificate: ${messageOf(error)}`, {}, error);
  }
}

/** Certificates that stand one behind the other. Throws as `readCertificate`. */
export function readCertificates(chain: Buffer): CertificateInfo[] {
  const infos: CertificateInfo[] = [];
  try {
    const reader = new DerReader(chain);
    while (!reader.isAtEnd) infos.push(read(reader.element(Tag.SEQUENCE)));
  } catch (error) {
    throw new IdentityError('BAD_CERTIFICATE', `not X.509 certificates: ${messageOf(error)}`, {}, error);
  }
  return infos;
}

function read(der: Buffer): CertificateInfo {
  const file = new DerReader(der);
  const certificate = file.enter(Tag.SEQUENCE);
  file.expectEnd();
  const body = certificate.enter(Tag.SEQUENCE);
  certificate.enter(Tag.SEQUENCE);
  certificate.enter(Tag.BIT_STRING);
  certificate.expectEnd();
  body.skipOptional(0xa0);
  const serial = readSerial(body);
  body.enter(Tag.SEQUENCE);
  const issuer = body.element(Tag.SEQUENCE);
  const validity = body.enter(Tag.SEQUENCE);
  const notBeforeMs = validity.time();
  const notAfterMs = validity.time();
  validity.expectEnd();
  const subject = body.element(Tag.SEQUENCE);
  const publicKey = body.element(Tag.SEQUENCE);
  body.skipOptional(0x81);
  body.skipOptional(0x82);
  const extensions = body.isAtEnd
    ? NO_EXTENSIONS
    : readExtensions(body.enter(EXTENSIONS).enter(Tag.SEQUENCE));
  body.expectEnd();
  return { serial, issuer, subject, notBeforeMs, notAfterMs, publicKey, ...extensions };
}

/** The next INTEGER as openssl prints serial numbers. */
export function readSerial(reader: DerReader): string {
  const hex = reader.contents(Tag.INTEGER).toString('hex');
  return hex.replace(/^00(?=.)/, '').toUpperCase();
}

const NO_EXTENSIONS: Readonly<Extensions> = { isCa: false, uris: [], subjectKeyId: null };

/** Extensions that matter here, of a certificate or of a CSR's extensionRequest; one that stands twice is an error (RFC 5280 4.2). */
export function readExtensions(list: DerReader): Extensions {
  const found: Extensions = { isCa: false, uris: [], subjectKeyId: null };
  const seen = new Set<number>();
  while (!list.isAtEnd) {
    const extension = list.enter(Tag.SEQUENCE);
    const oid = extension.contents(Tag.OID);
    extension.skipOptional(Tag.BOOLEAN);
    const value = extension.enter(Tag.OCTET_STRING);
    extension.expectEnd();
    const key = oid.length === 3 ? oid.readUIntBE(0, 3) : 0;
    if (key !== SUBJECT_ALT_NAME && key !== BASIC_CONSTRAINTS && key !== SUBJECT_KEY_ID) continue;
    if (seen.has(key)) throw new Error('an extension stands twice');
    seen.add(key);
    if (key === SUBJECT_ALT_NAME) readUris(value.enter(Tag.SEQUENCE), found.uris);
    else if (key === SUBJECT_KEY_ID) found.subjectKeyId = value.contents(Tag.OCTET_STRING);
    else found.isCa = readIsCa(value.enter(Tag.SEQUENCE));
    value.expectEnd();
  }
  return found;
}

function readIsCa(constraints: DerReader): boolean {
  return constraints.nextIs(Tag.BOOLEAN) && constraints.contents(Tag.BOOLEAN)[0] === 0xff;
}

function readUris(names: DerReader, uris: string[]): void {
  while (!names.isAtEnd) {
    const tag = names.bytes[names.at]!;
    const name = names.contents(tag);
    if (tag === URI_NAME) uris.push(name.toString('latin1'));
  }
}
