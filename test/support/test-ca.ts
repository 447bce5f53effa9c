import type { KeyObject } from 'node:crypto';
import { derToPem, generateKeyPair, issueCertificate, type KeyPair } from '../../mesh/identity/index.js';
import type { TlsMaterial } from '../../mesh/io/types.js';

const HOUR_MS = 3_600_000;

export interface Validity {
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
}

/** A certificate authority for tests: P-256, in memory. */
export class TestCa {
  readonly certificate: Buffer;
  /** Of the root that is trusted; its own certificate where it has no parent. */
  readonly root: Buffer;
  readonly #keys: KeyPair = generateKeyPair();

  constructor(name = 'test root', parent?: { readonly certificate: Buffer; readonly privateKey: KeyObject }) {
    this.certificate = issueCertificate(
      {
        publicKey: this.#keys.publicKey,
        organization: name,
        notBeforeMs: Date.now() - 24 * HOUR_MS,
        notAfterMs: Date.now() + 24 * HOUR_MS,
        ca: {},
      },
      parent ?? { privateKey: this.#keys.privateKey },
    );
    this.root = parent?.certificate ?? this.certificate;
  }

  /** An authority below this one; what it issues carries it in the chain. */
  issueIntermediate(name: string): TestCa {
    return new TestCa(name, { certificate: this.certificate, privateKey: this.#keys.privateKey });
  }

  /** Leaf, key and this root as bundle for `uri` (a SPIFFE identity). */
  issue(uri: string, validity: Validity = {}): TlsMaterial {
    const keys = generateKeyPair();
    const leaf = issueCertificate(
      {
        publicKey: keys.publicKey,
        uris: [uri],
        notBeforeMs: validity.notBeforeMs ?? Date.now() - HOUR_MS,
        notAfterMs: validity.notAfterMs ?? Date.now() + HOUR_MS,
      },
      { privateKey: this.#keys.privateKey, certificate: this.certificate },
    );
    return {
      certificateChain: this.root === this.certificate ? [leaf] : [leaf, this.certificate],
      privateKey: keys.privateKey.export({ type: 'pkcs8', format: 'der' }),
      trustBundle: [this.root],
    };
  }
}

/** The same material as node:tls takes it. */
export function nodeTlsOptions(material: TlsMaterial): { cert: string; key: string; ca: string[] } {
  return {
    cert: material.certificateChain.map((der) => derToPem(der, 'CERTIFICATE')).join(''),
    key: derToPem(material.privateKey, 'PRIVATE KEY'),
    ca: material.trustBundle.map((der) => derToPem(der, 'CERTIFICATE')),
  };
}
