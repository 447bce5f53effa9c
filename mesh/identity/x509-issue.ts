import { createHash, type KeyObject, randomBytes } from 'node:crypto';
import { tryParseAddress } from '../common/address.js';
import * as asn1 from './asn1.js';
import { DerReader, Tag } from './der-reader.js';
import { IdentityError } from './errors.js';
import { signatureOidFor, signWith } from './keys.js';
import { readCertificate } from './x509-read.js';

/** Subject alternative names. */
export interface SubjectNames {
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
}

/** What a certificate is to say. */
export interface CertificateRequest extends SubjectNames {
  readonly publicKey: KeyObject;
  /** Empty subject (and then a critical SAN) where both are absent, as a workload's leaf has it. */
  readonly organization?: string;
  readonly commonName?: string;
  /** Unix milliseconds; written in whole seconds. The end is cut to the issuer's own. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** A CA; absent: a leaf with serverAuth and clientAuth. */
  readonly ca?: { readonly pathLength?: number };
}

/** Who signs. `certificate` is absent for a root, which signs itself. EC or RSA key. */
export interface Signer {
  readonly privateKey: KeyObject;
  readonly certificate?: Buffer;
}

const OID = {
  organization: '2.5.4.10',
  commonName: '2.5.4.3',
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;
/** KeyUsage bits, most significant first: digitalSignature; keyCertSign and cRLSign. */
const LEAF_USAGE = { bits: 0x80, unused: 7 };
const CA_USAGE = { bits: 0x06, unused: 1 };

/** Builds and signs an X.509 v3 certificate (RFC 5280); DER. Throws IdentityError BAD_CERTIFICATE where the signer cannot issue it. */
export function issueCertificate(request: CertificateRequest, signer: Signer): Buffer {
  const issuer = signer.certificate === undefined ? null : readCertificate(signer.certificate);
  if (issuer !== null && !issuer.isCa) throw new IdentityError('BAD_CERTIFICATE', 'the issuer is not a CA');
  const algorithm = signatureOidFor(signer.privateKey);
  if (algorithm === null)
    throw new IdentityError('BAD_CERTIFICATE', "the issuer's key is neither EC nor RSA");
  const notAfterMs = Math.min(request.notAfterMs, issuer?.notAfterMs ?? request.notAfterMs);
  if (notAfterMs <= request.notBeforeMs) {
    throw new IdentityError('BAD_CERTIFICATE', 'the validity is empty (has the issuer expired?)');
  }
  const spki = request.publicKey.export({ type: 'spki', format: 'der' });
  const keyId = keyIdOf(spki);
  const subject = nameOf(request);
  const body = asn1.sequence(
    asn1.tagged(0, asn1.integer(Buffer.of(2))),
    asn1.integer(randomSerial()),
    algorithmOf(algorithm),
    issuer === null ? subject : asn1.existing(issuer.subject),
    asn1.sequence(asn1.time(request.notBeforeMs), asn1.time(notAfterMs)),
    subject,
    asn1.existing(spki),
    asn1.tagged(3, extensionsOf(request, keyId, issuer === null ? keyId : issuerKeyId(issuer))),
  );
  const signature = signWith(algorithm, asn1.toDer(body), signer.privateKey);
  return asn1.toDer(asn1.sequence(body, algorithmOf(algorithm), asn1.bitString(signature)));
}

function issuerKeyId(issuer: { subjectKeyId: Buffer | null; publicKey: Buffer }): Buffer {
  return issuer.subjectKeyId ?? keyIdOf(issuer.publicKey);
}

/** RFC 5280 4.2.1.2, method 1: SHA-1 of the key's bits. */
function keyIdOf(spki: Buffer): Buffer {
  const key = new DerReader(spki).enter(Tag.SEQUENCE);
  key.enter(Tag.SEQUENCE);
  return createHash('sha1').update(key.contents(Tag.BIT_STRING).subarray(1)).digest();
}

/** 126 random bits, positive, without a leading zero byte. */
function randomSerial(): Buffer {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x3f) | 0x40;
  return bytes;
}

/** RSA algorithms carry an explicit NULL (RFC 8017 A.2.4), ECDSA's nothing (RFC 5758 3.2). */
function algorithmOf(oid: string): asn1.Node {
  const isRsa = oid.startsWith('1.2.840.113549.');
  return isRsa ? asn1.sequence(asn1.oid(oid), asn1.existing(Buffer.of(5, 0))) : asn1.sequence(asn1.oid(oid));
}

function nameOf(request: CertificateRequest): asn1.Node {
  const parts: asn1.Node[] = [];
  const add = (type: string, value: string | undefined): void => {
    if (value !== undefined) parts.push(asn1.set(asn1.sequence(asn1.oid(type), asn1.utf8(value))));
  };
  add(OID.organization, request.organization);
  add(OID.commonName, request.commonName);
  return asn1.sequence(...parts);
}

function extensionsOf(request: CertificateRequest, keyId: Buffer, authorityKeyId: Buffer): asn1.Node {
  const isAnonymous = request.organization === undefined && request.commonName === undefined;
  const usage = request.ca === undefined ? LEAF_USAGE : CA_USAGE;
  const extensions = [
    extension(OID.keyUsage, true, asn1.bitString(Buffer.of(usage.bits), usage.unused)),
    extension(OID.basicConstraints, true, constraintsOf(request)),
    extension(OID.subjectKeyId, false, asn1.octetString(keyId)),
    extension(OID.authorityKeyId, false, asn1.sequence(asn1.taggedBytes(0, authorityKeyId))),
  ];
  if (request.ca === undefined) {
    const purposes = asn1.sequence(asn1.oid(OID.serverAuth), asn1.oid(OID.clientAuth));
    extensions.push(extension(OID.extendedKeyUsage, false, purposes));
  }
  const names = namesOf(request);
  if (names.length > 0) extensions.push(extension(OID.subjectAltName, isAnonymous, asn1.sequence(...names)));
  return asn1.sequence(...extensions);
}

function constraintsOf(request: CertificateRequest): asn1.Node {
  if (request.ca === undefined) return asn1.sequence();
  const { pathLength } = request.ca;
  const isCa = asn1.boolean(true);
  return pathLength === undefined
    ? asn1.sequence(isCa)
    : asn1.sequence(isCa, asn1.integer(Buffer.of(pathLength)));
}

/** GeneralNames (RFC 5280 4.2.1.6). Throws IdentityError BAD_CERTIFICATE. */
export function namesOf(request: SubjectNames): asn1.Node[] {
  const names: asn1.Node[] = [];
  for (const uri of request.uris ?? []) names.push(asn1.taggedBytes(6, Buffer.from(uri, 'latin1')));
  for (const dns of request.dnsNames ?? []) names.push(asn1.taggedBytes(2, Buffer.from(dns, 'latin1')));
  for (const address of request.ipAddresses ?? []) {
    const bytes = tryParseAddress(address);
    if (bytes === null)
      throw new IdentityError('BAD_CERTIFICATE', `not an IP address: ${JSON.stringify(address)}`);
    names.push(asn1.taggedBytes(7, Buffer.from(bytes)));
  }
  return names;
}

function extension(oid: string, isCritical: boolean, value: asn1.Node): asn1.Node {
  const octets = asn1.octetString(asn1.toDer(value));
  return isCritical
    ? asn1.sequence(asn1.oid(oid), asn1.boolean(true), octets)
    : asn1.sequence(asn1.oid(oid), octets);
}
