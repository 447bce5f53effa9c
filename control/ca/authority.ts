import { type KeyObject, X509Certificate } from 'node:crypto';
import { derToPem, issueCertificate, keyPairOf, readCertificate } from '../../mesh/identity/index.js';
import type { Log } from '../../mesh/log/index.js';

/** What the CA signs with, and what everybody trusts. */
export interface CaMaterial {
  readonly privateKey: KeyObject;
  /** DER, of the certificate that goes with the key. */
  readonly certificate: Buffer;
  /** PEM, one each: what stands behind every leaf, the signing one first; empty where that is a root. */
  readonly intermediates: readonly string[];
  /** PEM, one each: several while one root replaces another. */
  readonly roots: readonly string[];
}

/** A certificate for a workload or a server, as it is to be. */
export interface LeafRequest {
  /** PEM, signed by the key; no name in it but those below. Whoever has the CA's key needs only the key's public half. */
  readonly csr: string;
  readonly publicKey: KeyObject;
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
  /** Unix milliseconds; the end is a wish. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** A certificate with what stands behind it. */
export interface IssuedLeaf {
  /** DER. */
  readonly certificate: Buffer;
  /** PEM, one each: the way to a root, without it. */
  readonly intermediates: readonly string[];
  /** PEM, one each. */
  readonly roots: readonly string[];
}

/** Who signs, and whom everybody trusts; both may change while the controller runs. */
export interface Authority {
  /** PEM, one each: several while one root replaces another. */
  readonly roots: readonly string[];
  /** Unix milliseconds: when the root that signs, and the way to it, end. */
  readonly expiries: { readonly rootMs: number; readonly chainMs: number };
  /** Rejects with CaError CA_SIGNER where somebody else signs and does not, now. */
  sign(request: LeafRequest): Promise<IssuedLeaf>;
  /** Hears of every change from now on, called synchronously; returns how to stop. */
  subscribe(listener: () => void): () => void;
  close(): void;
}

/** How far back a certificate begins: clocks of those who look at it may be behind ours, by an hour where it lives for a day. */
export function backdateMs(lifetimeMs: number): number {
  return Math.max(60_000, lifetimeMs / 20);
}

/** Those who hear of changes of an authority. */
export class ChangeListeners {
  readonly #listeners = new Set<() => void>();
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  add(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What one of them makes of it is no concern of the others, nor of the change: it is in force. */
  tell(): void {
    for (const listener of this.#listeners) {
      try {
        listener();
      } catch (error) {
        this.#log.error({ err: error }, 'a change of the CA could not be passed on');
      }
    }
  }
}

/** An authority that has the CA's key. Its first material is to be there before it is handed on. */
export abstract class KeyAuthority implements Authority {
  readonly #listeners: ChangeListeners;
  #current: CaMaterial | null = null;

  constructor(log: Log) {
    this.#listeners = new ChangeListeners(log);
  }

  get current(): CaMaterial {
    if (this.#current === null) throw new Error('the CA has nothing to sign with yet');
    return this.#current;
  }

  get roots(): readonly string[] {
    return this.current.roots;
  }

  get expiries(): Authority['expiries'] {
    return { rootMs: rootNotAfterMs(this.current), chainMs: chainNotAfterMs(this.current) };
  }

  async sign(request: LeafRequest): Promise<IssuedLeaf> {
    const { current } = this;
    const { intermediates, roots } = current;
    return { certificate: issueCertificate(request, current), intermediates, roots };
  }

  abstract close(): void;

  subscribe(listener: () => void): () => void {
    return this.#listeners.add(listener);
  }

  /** False where it says the same as before. */
  protected replace(material: CaMaterial): boolean {
    if (this.#current !== null && textOf(material) === textOf(this.#current)) return false;
    this.#current = material;
    this.#listeners.tell();
    return true;
  }
}

/** The trust bundle as one PEM file. */
export function bundleOf({ roots }: { readonly roots: readonly string[] }): string {
  return roots.join('');
}

/** The end of the signing certificate or of the first root on its path that ends, Unix milliseconds. */
function chainNotAfterMs({ certificate, intermediates }: CaMaterial): number {
  const chain = [certificate, ...intermediates.slice(1).map((pem) => new X509Certificate(pem).raw)];
  return Math.min(...chain.map((der) => readCertificate(der).notAfterMs));
}

/** The end of the root that the signing certificate leads to, Unix milliseconds. */
function rootNotAfterMs(material: CaMaterial): number {
  return Math.max(...anchorsOf(material).map((root) => new Date(root.validTo).getTime()));
}

/** The roots of the bundle that the signing certificate leads to: one, but for roots made anew with the same key. */
export function anchorsOf(material: CaMaterial): X509Certificate[] {
  const top = new X509Certificate(material.intermediates.at(-1) ?? material.certificate);
  return material.roots
    .map((pem) => new X509Certificate(pem))
    .filter((root) => root.raw.equals(top.raw) || isIssuedBy(top, root));
}

export function isIssuedBy(subject: X509Certificate, issuer: X509Certificate): boolean {
  return issuer.ca && subject.checkIssued(issuer) && subject.verify(issuer.publicKey);
}

/** A step that agents survive: the roots of the old and of the new signing certificate are both known before and after. Throws. */
export function checkStep(before: CaMaterial, after: CaMaterial): void {
  if (!anchorsOf(after).some(({ raw }) => holds(before, raw)))
    throw new Error(
      'the signing certificate leads to a root that is not in force yet: add that root to the old ones first, wait until agents have it, then change the signing certificate (a restart of the controller puts it in force at once)',
    );
  if (!anchorsOf(before).some(({ raw }) => holds(after, raw)))
    throw new Error(
      'the root of the signing certificate in force is missing: change the signing certificate first, and take its root out when all leaves of it have ended (a restart of the controller puts it in force at once)',
    );
}

function holds({ roots }: CaMaterial, root: Buffer): boolean {
  return roots.some((pem) => new X509Certificate(pem).raw.equals(root));
}

/** Throws where the certificate (DER) cannot sign with this key now. */
export function checkSigner(certificate: Buffer, privateKey: KeyObject, nowMs: number): void {
  const info = readCertificate(certificate);
  if (!info.isCa) throw new Error('its certificate is not a CA');
  if (info.notAfterMs <= nowMs) throw new Error(`it expired at ${new Date(info.notAfterMs).toISOString()}`);
  if (!info.publicKey.equals(keyPairOf(privateKey).publicKey.export({ type: 'spki', format: 'der' })))
    throw new Error('key and certificate do not belong together');
}

/** Each certificate once, PEM. */
export function distinctPem(certificates: readonly Buffer[]): string[] {
  return [...new Set(certificates.map((der) => derToPem(der, 'CERTIFICATE')))];
}

function textOf({ certificate, intermediates, roots }: CaMaterial): string {
  return [certificate.toString('base64'), ...intermediates, '', ...roots].join('\n');
}
