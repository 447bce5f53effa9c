import { X509Certificate } from 'node:crypto';
import { messageOf } from '../common/errors.js';
import { IdentityError } from './errors.js';
import { readCertificate } from './x509-read.js';

const MAX_CHAIN = 8;
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/**
 * Verifies a workload's chain, leaf first and in order, up to a root of the bundle (which need not stand in the chain): signatures, names, CA
 * flags, validity at `nowMs` (Unix), and that the leaf may be client and server. All DER. Throws IdentityError UNTRUSTED_CHAIN or BAD_CERTIFICATE.
 */
export function verifyChain(chain: readonly Buffer[], roots: readonly Buffer[], nowMs: number): void {
  if (chain.length === 0 || chain.length > MAX_CHAIN) throw untrusted(`a chain of ${chain.length} certificates`);
  const links = chain.map(toX509);
  for (const [index, der] of chain.entries()) checkValidity(der, nowMs, index);
  const usages = links[0]!.keyUsage as string[] | undefined;
  if (usages !== undefined && !(usages.includes(SERVER_AUTH) && usages.includes(CLIENT_AUTH))) {
    throw untrusted('the leaf may not be both TLS client and server');
  }
  for (let i = 0; i + 1 < links.length; i++) {
    if (!isIssuedBy(links[i]!, links[i + 1]!)) throw untrusted(`certificate ${i} is not issued by the next`);
  }
  const last = links.at(-1)!;
  for (const root of roots) {
    const anchor = toX509(root);
    const isTheRoot = last.raw.equals(anchor.raw);
    if (!isTheRoot && !isIssuedBy(last, anchor)) continue;
    checkValidity(root, nowMs, links.length);
    return;
  }
  throw untrusted('no root of the bundle issued it');
}

function isIssuedBy(subject: X509Certificate, issuer: X509Certificate): boolean {
  return issuer.ca && subject.checkIssued(issuer) && subject.verify(issuer.publicKey);
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
