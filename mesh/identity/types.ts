/** One identity's key and certificates, all DER: what a TLS context is made of. */
export interface IdentityMaterial {
  readonly identity: string;
  /** Leaf first, then intermediates; no root. */
  readonly certificateChain: readonly Buffer[];
  /** PKCS#8. */
  readonly privateKey: Buffer;
  readonly trustBundle: readonly Buffer[];
  /** Of the leaf; Unix milliseconds. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Of the leaf, hexadecimal. */
  readonly serial: string;
}

/** What a CA answers to CreateCertificate, the last element of `cert_chain` split off as the roots (hbone-and-wds.md 4). */
export interface FetchedCertificate {
  /** PEM, leaf first, then intermediates, one or more per element. */
  readonly chain: readonly string[];
  /** PEM of one or more roots. */
  readonly roots: string;
}

/** Hears of every change; called synchronously. */
export interface CertificateListener {
  /** First certificate of this identity, or a renewed one. */
  onCertificate(identity: string, material: IdentityMaterial): void;
  /** It may not be used any more: it expired before a renewal came, or nobody here has this identity now. */
  onGone(identity: string, cause: 'expired' | 'forgotten'): void;
}

/** How urgent a fetch is, most urgent first: a connection waits · a workload has come · renewal. */
export const FETCH_PRIORITIES = ['live', 'warm-up', 'background'] as const;
export type FetchPriority = (typeof FETCH_PRIORITIES)[number];

/** One identity in the admin dump; no key material. */
export interface CertificateState {
  readonly identity: string;
  readonly state: 'valid' | 'missing';
  /** What goes on: asking the CA, waiting for a free slot, waiting after a failure, or nothing until the renewal. */
  readonly activity: 'fetching' | 'queued' | 'backing-off' | 'idle';
  readonly serial: string | null;
  readonly notBefore: string | null;
  readonly notAfter: string | null;
  readonly failures: number;
  readonly lastError: string | null;
}
