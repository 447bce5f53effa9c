import { createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';

/** Key pairs of workloads are ECDSA P-256; CAs may be given with other keys. */
export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

/** A fresh P-256 pair; about 0.1 ms, in this thread. */
export function generateKeyPair(): KeyPair {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' });
}

export function keyPairOf(privateKey: KeyObject): KeyPair {
  return { privateKey, publicKey: createPublicKey(privateKey) };
}

interface SignatureAlgorithm {
  readonly oid: string;
  readonly digest: 'sha256' | 'sha384' | 'sha512';
  readonly keyType: 'ec' | 'rsa';
}

/** RFC 5758 3.2 and RFC 8017 A.2.4. */
const ALGORITHMS: readonly SignatureAlgorithm[] = [
  { oid: '1.2.840.10045.4.3.2', digest: 'sha256', keyType: 'ec' },
  { oid: '1.2.840.10045.4.3.3', digest: 'sha384', keyType: 'ec' },
  { oid: '1.2.840.10045.4.3.4', digest: 'sha512', keyType: 'ec' },
  { oid: '1.2.840.113549.1.1.11', digest: 'sha256', keyType: 'rsa' },
  { oid: '1.2.840.113549.1.1.12', digest: 'sha384', keyType: 'rsa' },
  { oid: '1.2.840.113549.1.1.13', digest: 'sha512', keyType: 'rsa' },
];

/** The algorithm we sign with under this key; null where its type is not one of ours (EC, RSA). */
export function signatureOidFor(key: KeyObject): string | null {
  if (key.asymmetricKeyType === 'rsa') return '1.2.840.113549.1.1.11';
  if (key.asymmetricKeyType !== 'ec') return null;
  return key.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? '1.2.840.10045.4.3.3' : '1.2.840.10045.4.3.2';
}

/** Signature over `bytes` by the algorithm `oid` (one of `signatureOidFor`). */
export function signWith(oid: string, bytes: Buffer, privateKey: KeyObject): Buffer {
  return sign(algorithm(oid)!.digest, bytes, privateKey);
}

/** False also for algorithms that are not accepted or do not fit the key. */
export function isSignedWith(oid: string, bytes: Buffer, publicKey: KeyObject, signature: Buffer): boolean {
  const found = algorithm(oid);
  if (found === undefined || found.keyType !== publicKey.asymmetricKeyType) return false;
  return verify(found.digest, bytes, publicKey, signature);
}

function algorithm(oid: string): SignatureAlgorithm | undefined {
  return ALGORITHMS.find((one) => one.oid === oid);
}
