import type { AuthenticationOutcome } from '../ca/types.js';

/** What a service account token says of itself; nobody has checked it yet. */
export interface TokenClaims {
  readonly audiences: readonly string[];
  /** Unix milliseconds. */
  readonly expiresAtMs: number;
}

/** `status.user` of a TokenReview. */
export interface ReviewedUser {
  readonly username: string;
  /** Values of `user.extra`, by name. */
  readonly extra: ReadonlyMap<string, readonly string[]>;
}

const ACCOUNT = /^system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})$/;
/** The API server takes these from the claims of the token (KEP-4193, GA in 1.32). */
const EXTRA = 'authentication.kubernetes.io/';

/** Null: no service account token that could be good here. */
export function readClaims(token: string): TokenClaims | null {
  const parts = token.split('.');
  if (parts.length !== 3) return null;
  try {
    const payload = JSON.parse(Buffer.from(parts[1]!, 'base64url').toString('utf8')) as unknown;
    if (typeof payload !== 'object' || payload === null) return null;
    const { aud, exp } = payload as { aud?: unknown; exp?: unknown };
    if (typeof exp !== 'number') return null;
    const audiences = (Array.isArray(aud) ? (aud as unknown[]) : [aud]).filter(
      (one) => typeof one === 'string',
    );
    return { audiences, expiresAtMs: exp * 1000 };
  } catch {
    return null;
  }
}

/** Who that is: the API server has checked the token, so that user and claims are true. Only tokens of a pod on a node will do. */
export function callerOf({ username, extra }: ReviewedUser, expiresAtMs: number): AuthenticationOutcome {
  const account = ACCOUNT.exec(username);
  if (account === null)
    return { refusal: 'token-invalid', message: `${username.slice(0, 300)} is no service account` };
  const one = (name: string) => {
    const values = extra.get(`${EXTRA}${name}`) ?? [];
    return values.length === 1 && values[0] !== '' ? values[0]! : null;
  };
  const pod = { name: one('pod-name'), uid: one('pod-uid') };
  if (pod.name === null || pod.uid === null)
    return { refusal: 'token-unbound', message: 'the token is bound to no pod: a projected token is needed' };
  const [nodeName, nodeUid] = [one('node-name'), one('node-uid')];
  if (nodeName === null || nodeUid === null)
    return {
      refusal: 'no-node',
      message: 'the token is bound to no node (Kubernetes 1.32 or later is needed)',
    };
  return {
    caller: {
      namespace: account[1]!,
      serviceAccount: account[2]!,
      nodeName,
      nodeUid,
      pod: { name: pod.name, uid: pod.uid },
      expiresAtMs,
    },
  };
}
