import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { messageOf } from '../../mesh/common/errors.js';
import { derToPem, pemToDer } from '../../mesh/identity/index.js';
import { anchorsOf, type CaMaterial, checkSigner, distinctPem, isIssuedBy } from './authority.js';
import { CaError } from './errors.js';

/** Of `cacerts` and of cert-manager (mesh-apis.md 7): each under its two names, the first that is there counts. */
export const MATERIAL_NAMES = {
  certificate: ['ca-cert.pem', 'tls.crt'],
  key: ['ca-key.pem', 'tls.key'],
  roots: ['root-cert.pem', 'ca.crt'],
  /** Optional: the way from the signing certificate to a root. */
  chain: ['cert-chain.pem'],
} as const;

/** One of them, and where it was found. */
export interface MaterialPart {
  readonly place: string;
  readonly text: string;
}

const MAX_INTERMEDIATES = 6;

/** Puts together what was given by names; `find` gives null for what is not there. Throws CaError, or Error, where that cannot sign. */
export function readMaterial(find: (name: string) => MaterialPart | null, nowMs: number): CaMaterial {
  const first = (names: readonly string[]) => {
    for (const name of names) {
      const found = find(name);
      if (found !== null) return found;
    }
    return null;
  };
  const required = (names: readonly string[]) => {
    const found = first(names);
    if (found === null) throw new Error(`${names.join(' (or ')}${names.length > 1 ? ')' : ''} is missing`);
    return found;
  };
  const given = certificatesIn(required(MATERIAL_NAMES.certificate));
  const privateKey = keyIn(required(MATERIAL_NAMES.key));
  const roots = certificatesIn(required(MATERIAL_NAMES.roots));
  checkSigner(given[0]!, privateKey, nowMs);
  const chain = first(MATERIAL_NAMES.chain);
  const helpers = [...given.slice(1), ...(chain === null ? [] : certificatesIn(chain))];
  const intermediates = pathOf(given[0]!, helpers, roots).map((der) => derToPem(der, 'CERTIFICATE'));
  const material = { privateKey, certificate: given[0]!, intermediates, roots: distinctPem(roots) };
  // The signing one first: agents see a change, and renew, also where the same roots are trusted.
  return { ...material, roots: distinctPem([...anchorsOf(material).map(({ raw }) => raw), ...roots]) };
}

/** DER of all certificates of a PEM text. Throws CaError. */
export function certificatesIn({ place, text }: MaterialPart): Buffer[] {
  try {
    const certificates = pemToDer(text, 'CERTIFICATE');
    for (const der of certificates) new X509Certificate(der);
    return certificates;
  } catch (error) {
    throw new CaError('CA_STATE', `${place}: ${messageOf(error)}`, { file: place }, error);
  }
}

function keyIn({ place, text }: MaterialPart): KeyObject {
  try {
    return createPrivateKey(text);
  } catch (error) {
    throw new CaError('CA_STATE', `${place}: ${messageOf(error)}`, { file: place }, error);
  }
}

/** From the certificate to just below a root, it first; empty where it is a root itself. `helpers` may hold more than the way, also roots. Throws. */
export function pathOf(certificate: Buffer, helpers: readonly Buffer[], roots: readonly Buffer[]): Buffer[] {
  const anchors = roots.map((der) => new X509Certificate(der));
  if (anchors.some(({ raw }) => raw.equals(certificate))) return [];
  const candidates = helpers.map((der) => new X509Certificate(der));
  const path = [new X509Certificate(certificate)];
  while (!anchors.some((anchor) => isIssuedBy(path.at(-1)!, anchor))) {
    const next = candidates.find(
      (one) => isIssuedBy(path.at(-1)!, one) && !path.some(({ raw }) => raw.equals(one.raw)),
    );
    if (next === undefined || path.length === MAX_INTERMEDIATES)
      throw new Error('the signing certificate leads to no root of the trust bundle');
    path.push(next);
  }
  return path.map(({ raw }) => raw);
}
