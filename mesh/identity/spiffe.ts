import { IdentityError } from './errors.js';

/** A workload's identity: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` (hbone-and-wds.md 1.2). */
export interface SpiffeId {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The SPIFFE-ID standard, 2.1-2.3: a trust domain has at most 255 of [a-z0-9._-], a path segment [a-zA-Z0-9._-] but is not . or .. ; the whole at most 2048 bytes. */
const GRAMMAR = /^spiffe:\/\/([a-z0-9._-]{1,255})\/ns\/([a-zA-Z0-9._-]+)\/sa\/([a-zA-Z0-9._-]+)$/;
const MAX_LENGTH = 2048;

/** Exactly the mesh's shape of SPIFFE id, or null. Nothing is normalised: two ids are equal only as text. */
export function tryParseSpiffeId(text: string): SpiffeId | null {
  if (text.length > MAX_LENGTH) return null;
  const parts = GRAMMAR.exec(text);
  if (parts === null) return null;
  const [, trustDomain, namespace, serviceAccount] = parts as unknown as [string, string, string, string];
  if (isDots(namespace) || isDots(serviceAccount)) return null;
  return { trustDomain, namespace, serviceAccount };
}

/** As tryParseSpiffeId; throws IdentityError BAD_SPIFFE_ID. */
export function parseSpiffeId(text: string): SpiffeId {
  const id = tryParseSpiffeId(text);
  if (id !== null) return id;
  throw new IdentityError(
    'BAD_SPIFFE_ID',
    `not a workload identity (spiffe://<trust domain>/ns/<namespace>/sa/<service account>): ${JSON.stringify(text.slice(0, 200))}`,
  );
}

/** The text of an id; throws IdentityError BAD_SPIFFE_ID where a part would not be read back as it is. */
export function formatSpiffeId(id: SpiffeId): string {
  const text = `spiffe://${id.trustDomain}/ns/${id.namespace}/sa/${id.serviceAccount}`;
  parseSpiffeId(text);
  return text;
}

function isDots(segment: string): boolean {
  return segment === '.' || segment === '..';
}
