import { X509Certificate } from 'node:crypto';
import { type MaterialPart, makeRoot } from '../ca/index.js';

/** A Secret as the API has it. */
export interface SecretObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly type: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly resourceVersion?: string;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly labels?: Readonly<Record<string, string>>;
  };
  /** Base64. */
  readonly data?: Readonly<Record<string, string>>;
}

/** Key and certificate, PEM. */
export interface RootPair {
  readonly key: string;
  readonly certificate: string;
}

/** A root of our own, with what follows it or went before. */
export interface OwnRoot {
  readonly signer: RootPair;
  /** Trusted, and will sign. */
  readonly next: RootPair | null;
  /** Have signed, and are still trusted; PEM, one each. */
  readonly previous: readonly string[];
  /** Unix milliseconds; `next` has been trusted since. */
  readonly announcedAtMs: number | null;
  /** `signer` has signed since; `previous` go `overlapMs` later. */
  readonly promotedAtMs: number | null;
  /** Somebody asked for a new root. */
  readonly isRotationWanted: boolean;
}

/** Type of Secrets that a controller made: only these are rotated by it. */
export const OWN_TYPE = 'culvert.io/ca-root';
/** Put on the Secret by who wants another root; any value. */
export const ROTATE_ANNOTATION = 'culvert.io/rotate-root';
const ANNOUNCED = 'culvert.io/next-root-announced-at';
const PROMOTED = 'culvert.io/root-signs-since';
const KEYS = {
  certificate: 'ca-cert.pem',
  key: 'ca-key.pem',
  bundle: 'root-cert.pem',
  nextCertificate: 'next-ca-cert.pem',
  nextKey: 'next-ca-key.pem',
} as const;
/** A root is replaced when this part of its life is left (istiod: mesh-apis.md 7). */
const LAST_PART = 0.2;

/** What is under that name; null where there is nothing. For `readMaterial`. */
export function partOf({ metadata, data }: SecretObject, name: string): MaterialPart | null {
  const text = Buffer.from(data?.[name] ?? '', 'base64').toString('utf8');
  if (text.trim() === '') return null;
  return { place: `Secret ${metadata.namespace}/${metadata.name}: ${name}`, text };
}

/** A Secret that is to be made. */
export function newSecret(namespace: string, name: string, root: OwnRoot): SecretObject {
  const metadata = { name, namespace, labels: { 'app.kubernetes.io/managed-by': 'culvert' } };
  return secretOf({ apiVersion: 'v1', kind: 'Secret', type: OWN_TYPE, metadata }, root);
}

/** The Secret with that root in it; whatever else it has stays. */
export function secretOf(secret: SecretObject, root: OwnRoot): SecretObject {
  const { signer, next, previous } = root;
  const annotations: Record<string, string> = { ...secret.metadata.annotations };
  const data: Record<string, string> = { ...secret.data };
  for (const name of [ANNOUNCED, PROMOTED, ROTATE_ANNOTATION]) delete annotations[name];
  if (root.announcedAtMs !== null) annotations[ANNOUNCED] = new Date(root.announcedAtMs).toISOString();
  if (root.promotedAtMs !== null) annotations[PROMOTED] = new Date(root.promotedAtMs).toISOString();
  delete data[KEYS.nextCertificate];
  delete data[KEYS.nextKey];
  const texts: [name: string, text: string][] = [
    [KEYS.certificate, signer.certificate],
    [KEYS.key, signer.key],
    [KEYS.bundle, [signer.certificate, ...(next === null ? [] : [next.certificate]), ...previous].join('')],
    ...(next === null
      ? []
      : ([
          [KEYS.nextCertificate, next.certificate],
          [KEYS.nextKey, next.key],
        ] as const)),
  ].map(([name, text]) => [name!, text!]);
  for (const [name, text] of texts) data[name] = Buffer.from(text).toString('base64');
  return { ...secret, metadata: { ...secret.metadata, annotations }, data };
}

/** Null where it is not whole. */
export function ownRootOf(secret: SecretObject): OwnRoot | null {
  const text = (name: string) => partOf(secret, name)?.text ?? null;
  const pair = (certificate: string | null, key: string | null) =>
    certificate === null || key === null ? null : { certificate, key };
  const signer = pair(text(KEYS.certificate), text(KEYS.key));
  if (signer === null) return null;
  const next = pair(text(KEYS.nextCertificate), text(KEYS.nextKey));
  const known = [signer.certificate, next?.certificate ?? ''].map((pem) => pem.trim());
  const { annotations = {} } = secret.metadata;
  return {
    signer,
    next,
    previous: (text(KEYS.bundle)?.match(CERTIFICATES) ?? [])
      .filter((pem) => !known.includes(pem.trim()))
      .map((pem) => `${pem.trim()}\n`),
    announcedAtMs: timeOf(annotations[ANNOUNCED]),
    promotedAtMs: timeOf(annotations[PROMOTED]),
    isRotationWanted: annotations[ROTATE_ANNOTATION] !== undefined,
  };
}

const CERTIFICATES = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----\n?/g;

function timeOf(text: string | undefined): number | null {
  const ms = Date.parse(text ?? '');
  return Number.isNaN(ms) ? null : ms;
}

/** A root that has just been made. */
export function firstRoot(trustDomain: string, nowMs: number): OwnRoot {
  const signer = makeRoot(trustDomain, nowMs);
  return {
    signer,
    next: null,
    previous: [],
    announcedAtMs: null,
    promotedAtMs: null,
    isRotationWanted: false,
  };
}

export interface StepOptions {
  readonly trustDomain: string;
  readonly overlapMs: number;
  readonly nowMs: number;
}

/**
 * The next step, where one is due; else the same object. One root follows another in three: both are trusted, the new one signs, the old one is
 * trusted no more; `overlapMs` after one another, so that everybody has learnt of each in time. Throws where the signer cannot be read.
 */
export function nextStep(root: OwnRoot, { trustDomain, overlapMs, nowMs }: StepOptions): OwnRoot {
  const isOver = (sinceMs: number | null) => sinceMs !== null && nowMs - sinceMs >= overlapMs;
  const { signer, next, previous, announcedAtMs } = root;
  if (next === null && (root.isRotationWanted || isNearItsEnd(signer.certificate, nowMs)))
    return {
      ...root,
      next: makeRoot(trustDomain, nowMs),
      announcedAtMs: nowMs,
      isRotationWanted: false,
    };
  if (root.isRotationWanted) return { ...root, isRotationWanted: false }; // is under way already
  if (next !== null && announcedAtMs === null) return { ...root, announcedAtMs: nowMs };
  if (next !== null && isOver(announcedAtMs))
    return {
      ...root,
      signer: next,
      next: null,
      previous: [signer.certificate, ...previous],
      announcedAtMs: null,
      promotedAtMs: nowMs,
    };
  if (isOver(root.promotedAtMs)) return { ...root, previous: [], promotedAtMs: null };
  return root;
}

function isNearItsEnd(pem: string, nowMs: number): boolean {
  const { validFrom, validTo } = new X509Certificate(pem);
  const [fromMs, toMs] = [Date.parse(validFrom), Date.parse(validTo)];
  return toMs - nowMs < LAST_PART * (toMs - fromMs);
}
