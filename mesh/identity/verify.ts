import { X509Certificate } from 'node:crypto';
import { messageOf } from '../common/errors.js';
import { IdentityError } from './errors.js';
import type { KeyPair } from './keys.js';
import { pemToDer } from './pem.js';
import type { FetchedCertificate, IdentityMaterial } from './types.js';
import { readCertificate } from './x509-read.js';

const MAX_CHAIN = 8;
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/**
 * Verifies a workload's chain, leaf first and in order, up to a root of the bundle (which need not stand in the chain): signatures, names, CA
 * flags, validity at `nowMs` (Unix), and that the leaf may be client and server. All DER. Throws IdentityError UNTRUSTED_CHAIN or BAD_CERTIFICATE.
 */
export function verifyChain(chain: readonly Buffer[], roots: readonly Buffer[], nowMs: number): void {
  if (chain.length === 0 || chain.length > MAX_CHAIN)
    throw untrusted(`a chain of ${chain.length} certificates`);
  const links = chain.map(toX509);
  for (const [index, der] of chain.entries()) checkValidity(der, nowMs, index);
  const usages = (links[0]!.keyUsage as string[] | undefined) ?? [];
  if (links[0]!.ca || !usages.includes(SERVER_AUTH) || !usages.includes(CLIENT_AUTH)) {
    throw untrusted('the leaf may not be both TLS client and server, or is a CA');
  }
  for (let i = 0; i + 1 < links.length; i++) {
    if (!isIssuedBy(links[i]!, links[i + 1]!)) throw untrusted(`certificate ${i} is not issued by the next`);
  }
  const last = links.at(-1)!;
  const anchors = roots.filter((root) => last.raw.equals(root) || isIssuedBy(last, toX509(root)));
  if (anchors.length === 0) throw untrusted('no root of the bundle issued it');
  // A root may stand twice, made anew with the same key.
  if (!anchors.some((root) => isValidAt(root, nowMs))) checkValidity(anchors[0]!, nowMs, links.length);
}

/**
 * What a CA answered, checked before use: the leaf is for this identity alone and for our key, the chain leads to the roots and is valid now.
 * Throws IdentityError.
 */
export function checkFetched(
  identity: string,
  keys: KeyPair,
  fetched: FetchedCertificate,
  nowMs: number,
): IdentityMaterial {
  const certificateChain = fetched.chain.flatMap((pem) => pemToDer(pem, 'CERTIFICATE'));
  const trustBundle = pemToDer(fetched.roots, 'CERTIFICATE');
  const [first] = certificateChain;
  if (first === undefined)
    throw new IdentityError('BAD_CERTIFICATE', `the CA sent no certificate for ${identity}`);
  const leaf = readCertificate(first);
  if (leaf.uris.length !== 1 || leaf.uris[0] !== identity) {
    const got = JSON.stringify(leaf.uris.slice(0, 4));
    throw new IdentityError('IDENTITY_MISMATCH', `the CA's certificate for ${identity} names ${got}`);
  }
  if (!leaf.publicKey.equals(keys.publicKey.export({ type: 'spki', format: 'der' }))) {
    throw new IdentityError('KEY_MISMATCH', `the CA's certificate for ${identity} is not for our key`);
  }
  verifyChain(certificateChain, trustBundle, nowMs);
  const { serial, notBeforeMs, notAfterMs } = leaf;
  const privateKey = keys.privateKey.export({ type: 'pkcs8', format: 'der' });
  return { identity, certificateChain, privateKey, trustBundle, notBeforeMs, notAfterMs, serial };
}

function isIssuedBy(subject: X509Certificate, issuer: X509Certificate): boolean {
  return issuer.ca && subject.checkIssued(issuer) && subject.verify(issuer.publicKey);
}

function isValidAt(der: Buffer, nowMs: number): boolean {
  const { notBeforeMs, notAfterMs } = readCertificate(der);
  return notBeforeMs <= nowMs && nowMs <= notAfterMs;
}

function checkValidity(der: Buffer, nowMs: number, index: number): void {
  const { notBeforeMs, notAfterMs } = readCertificate(der);
  if (nowMs < notBeforeMs) throw untrusted(`certificate ${index} is valid only from ${iso(notBeforeMs)}`);
  if (nowMs > notAfterMs) throw untrusted(`certificate ${index} has expired at ${iso(notAfterMs)}`);
}

function toX509(der: Buffer): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch (error) {
    throw new IdentityError('BAD_CERTIFICATE', `not an X.509 certificate: ${messageOf(error)}`, {}, error);
  }
}

function iso(unixMs: number): string {
  return new Date(unixMs).toISOString();
}

function untrusted(reason: string): IdentityError {
  return new IdentityError('UNTRUSTED_CHAIN', `the certificate chain is not trusted: ${reason}`);
}
