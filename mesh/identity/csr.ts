import { createPublicKey, type KeyObject } from 'node:crypto';
import { messageOf } from '../common/errors.js';
import * as asn1 from './asn1.js';
import { DerReader, Tag } from './der-reader.js';
import { IdentityError } from './errors.js';
import { isSignedWith, type KeyPair, signatureOidFor, signWith } from './keys.js';
import { derToPem, pemToDer } from './pem.js';
import { namesOf, type SubjectNames } from './x509-issue.js';
import { readExtensions } from './x509-read.js';

const OID = { extensionRequest: '1.2.840.113549.1.9.14', subjectAltName: '2.5.29.17' } as const;
/** A CSR with one URI and a P-256 key has 0.3 KB; with RSA-4096 1.5 KB. */
const MAX_CSR_BYTES = 16 * 1024;
/** [0], of CertificationRequestInfo. */
const ATTRIBUTES = 0xa0;
const MIN_RSA_BITS = 2048;
const CURVES = ['prime256v1', 'secp384r1'];

/** PKCS#10 (RFC 2986) as Istio's CA wants it: empty subject, one critical SAN extension with the URI (or the names), SHA-256. PEM. */
export function buildCsr(keys: KeyPair, names: string | SubjectNames): string {
  const info = asn1.sequence(
    asn1.integer(Buffer.of(0)),
    asn1.sequence(),
    asn1.existing(keys.publicKey.export({ type: 'spki', format: 'der' })),
    attributesOf(typeof names === 'string' ? { uris: [names] } : names, true),
  );
  const algorithm = signatureOidFor(keys.privateKey)!;
  const signature = signWith(algorithm, asn1.toDer(info), keys.privateKey);
  const csr = asn1.sequence(info, asn1.sequence(asn1.oid(algorithm)), asn1.bitString(signature));
  return derToPem(asn1.toDer(csr), 'CERTIFICATE REQUEST');
}

function attributesOf(names: SubjectNames, isCritical: boolean): asn1.Node {
  const extension = asn1.sequence(
    asn1.oid(OID.subjectAltName),
    ...(isCritical ? [asn1.boolean(true)] : []),
    asn1.octetString(asn1.toDer(asn1.sequence(...namesOf(names)))),
  );
  return asn1.tagged(0, asn1.sequence(asn1.oid(OID.extensionRequest), asn1.set(asn1.sequence(extension))));
}

/** What a CA reads of a CSR: the key, proven to be in the asker's hands, and the URIs asked for (a wish, no right). */
export interface CsrInfo {
  readonly publicKey: KeyObject;
  readonly uris: readonly string[];
  /** Nothing but one URI is asked for: no subject, no other name, extension or attribute. Who passes it on to another CA must insist on that. */
  readonly isPlain: boolean;
}

/** Reads a CSR and verifies its own signature. Keys: EC P-256 or P-384, RSA from 2048 bits. Throws IdentityError BAD_PEM or BAD_CSR. */
export function readCsr(pem: string): CsrInfo {
  if (pem.length > MAX_CSR_BYTES)
    throw new IdentityError('BAD_CSR', `the CSR is above ${MAX_CSR_BYTES} bytes`);
  const [der, ...more] = pemToDer(pem, 'CERTIFICATE REQUEST');
  if (more.length > 0) throw new IdentityError('BAD_CSR', 'more than one CSR');
  try {
    return read(der!);
  } catch (error) {
    throw new IdentityError('BAD_CSR', `bad CSR: ${messageOf(error)}`, {}, error);
  }
}

function read(der: Buffer): CsrInfo {
  const file = new DerReader(der);
  const csr = file.enter(Tag.SEQUENCE);
  file.expectEnd();
  const infoBytes = csr.element(Tag.SEQUENCE);
  const algorithm = asn1.oidText(csr.enter(Tag.SEQUENCE).contents(Tag.OID));
  const signature = csr.contents(Tag.BIT_STRING);
  csr.expectEnd();
  const info = new DerReader(infoBytes).enter(Tag.SEQUENCE);
  info.enter(Tag.INTEGER);
  const subject = info.element(Tag.SEQUENCE);
  const publicKey = createPublicKey({ key: info.element(Tag.SEQUENCE), format: 'der', type: 'spki' });
  checkKey(publicKey);
  const attributes = info.nextIs(ATTRIBUTES) ? info.element(ATTRIBUTES) : null;
  const uris = attributes === null ? [] : readRequestedUris(new DerReader(attributes).enter(ATTRIBUTES));
  info.expectEnd();
  if (signature[0] !== 0 || !isSignedWith(algorithm, infoBytes, publicKey, signature.subarray(1))) {
    throw new Error('its signature is not by its own key');
  }
  return { publicKey, uris, isPlain: isEmpty(subject) && attributes !== null && isPlain(attributes, uris) };
}

function isEmpty(sequence: Buffer): boolean {
  return sequence.length === 2;
}

/** What we would have written ourselves, byte by byte. */
function isPlain(attributes: Buffer, uris: readonly string[]): boolean {
  if (uris.length !== 1) return false;
  return [true, false].some((isCritical) =>
    asn1.toDer(attributesOf({ uris }, isCritical)).equals(attributes),
  );
}

function checkKey(key: KeyObject): void {
  const details = key.asymmetricKeyDetails;
  if (key.asymmetricKeyType === 'ec' && CURVES.includes(details?.namedCurve ?? '')) return;
  if (key.asymmetricKeyType === 'rsa' && (details?.modulusLength ?? 0) >= MIN_RSA_BITS) return;
  throw new Error('its key is neither EC P-256 or P-384 nor RSA from 2048 bits');
}

function readRequestedUris(attributes: DerReader): string[] {
  const uris: string[] = [];
  while (!attributes.isAtEnd) {
    const attribute = attributes.enter(Tag.SEQUENCE);
    const oid = asn1.oidText(attribute.contents(Tag.OID));
    const values = attribute.enter(Tag.SET);
    if (oid === OID.extensionRequest) uris.push(...readExtensions(values.enter(Tag.SEQUENCE)).uris);
  }
  return uris;
}
