import { createPrivateKey, type KeyObject } from 'node:crypto';
import { messageOf } from '../../mesh/common/errors.js';
import { derToPem, generateKeyPair, issueCertificate, pemToDer } from '../../mesh/identity/index.js';
import { checkSigner } from './authority.js';
import { CaError } from './errors.js';
import { createSecret, readSecret } from './state-file.js';

/** A self-signed root with its key. */
export interface RootCa {
  readonly privateKey: KeyObject;
  /** DER. */
  readonly certificate: Buffer;
}

const YEAR_MS = 365 * 24 * 3_600_000;
const LIFETIME_MS = 10 * YEAR_MS;
/** Clocks of nodes may be behind ours, and a root is for all of them. */
const BACKDATE_MS = 24 * 3_600_000;

/** The root in `file` (key and certificate in one, so that no crash separates them), made if there is none. Throws CaError if what is there cannot be used: it is never replaced. */
export function loadOrCreateRoot(file: string, trustDomain: string, nowMs = Date.now()): RootCa {
  const existing = tryLoadRoot(file, nowMs);
  if (existing !== null) return existing;
  const { key, certificate } = makeRoot(trustDomain, nowMs);
  return parseRoot(file, createSecret(file, `${key}${certificate}`), nowMs);
}

/** A new root, PEM. */
export function makeRoot(trustDomain: string, nowMs: number): { key: string; certificate: string } {
  const keys = generateKeyPair();
  const certificate = issueCertificate(
    {
      publicKey: keys.publicKey,
      organization: trustDomain,
      commonName: 'Culvert root',
      notBeforeMs: nowMs - BACKDATE_MS,
      notAfterMs: nowMs + LIFETIME_MS,
      ca: {},
    },
    { privateKey: keys.privateKey },
  );
  return {
    key: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certificate: derToPem(certificate, 'CERTIFICATE'),
  };
}

/** Null where there is no such file. Throws CaError. */
export function tryLoadRoot(file: string, nowMs: number): RootCa | null {
  const text = readSecret(file);
  return text === null ? null : parseRoot(file, text, nowMs);
}

function parseRoot(file: string, text: string, nowMs: number): RootCa {
  try {
    const privateKey = createPrivateKey(text);
    const certificate = pemToDer(text.slice(text.indexOf('-----BEGIN CERTIFICATE-----')), 'CERTIFICATE')[0]!;
    checkSigner(certificate, privateKey, nowMs);
    return { privateKey, certificate };
  } catch (error) {
    throw new CaError('CA_STATE', `${file}: ${messageOf(error)}`, { file }, error);
  }
}
