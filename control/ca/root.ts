import { createPrivateKey, type KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import {
  derToPem,
  generateKeyPair,
  issueCertificate,
  keyPairOf,
  pemToDer,
  readCertificate,
} from '../../mesh/identity/index.js';
import { CaError } from './errors.js';
import { createSecret, readSecret } from './state-file.js';

/** The mesh's root: what everybody trusts, and the key that signs. */
export interface RootCa {
  readonly privateKey: KeyObject;
  /** DER. */
  readonly certificate: Buffer;
  /** PEM, for trust bundles. */
  readonly pem: string;
}

/** Key and certificate in one file, so that no crash separates them. */
const FILE = 'root-ca.pem';
const YEAR_MS = 365 * 24 * 3_600_000;
const LIFETIME_MS = 10 * YEAR_MS;
/** Clocks of nodes may be behind ours. */
const BACKDATE_MS = 60_000;

/** The root kept in `stateDir`; made at first start. Throws CaError if what is there cannot be used: it is never replaced. */
export function loadOrCreateRoot(stateDir: string, trustDomain: string): RootCa {
  const file = join(stateDir, FILE);
  const text = readSecret(file);
  if (text !== null) return parseRoot(file, text);
  const keys = generateKeyPair();
  const now = Date.now();
  const certificate = issueCertificate(
    {
      publicKey: keys.publicKey,
      organization: trustDomain,
      commonName: 'Culvert root',
      notBeforeMs: now - BACKDATE_MS,
      notAfterMs: now + LIFETIME_MS,
      ca: {},
    },
    { privateKey: keys.privateKey },
  );
  const key = keys.privateKey.export({ type: 'pkcs8', format: 'pem' });
  return parseRoot(file, createSecret(file, `${key}${derToPem(certificate, 'CERTIFICATE')}`));
}

function parseRoot(file: string, text: string): RootCa {
  try {
    const privateKey = createPrivateKey(text);
    const certificate = pemToDer(text.slice(text.indexOf('-----BEGIN CERTIFICATE-----')), 'CERTIFICATE')[0]!;
    const info = readCertificate(certificate);
    if (!info.isCa) throw new Error('its certificate is not a CA');
    if (info.notAfterMs <= Date.now())
      throw new Error(`it expired at ${new Date(info.notAfterMs).toISOString()}`);
    if (!info.publicKey.equals(keyPairOf(privateKey).publicKey.export({ type: 'spki', format: 'der' })))
      throw new Error('key and certificate do not belong together');
    return { privateKey, certificate, pem: derToPem(certificate, 'CERTIFICATE') };
  } catch (error) {
    throw new CaError('CA_STATE', `${file}: ${messageOf(error)}`, { file }, error);
  }
}
