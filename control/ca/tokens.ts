import { createPrivateKey, type KeyObject } from 'node:crypto';
import { join } from 'node:path';
import type { Metadata } from '@grpc/grpc-js';
import { errors, type JWTPayload, jwtVerify, SignJWT } from 'jose';
import { messageOf } from '../../mesh/common/errors.js';
import { generateKeyPair, type KeyPair, keyPairOf } from '../../mesh/identity/index.js';
import { CaError } from './errors.js';
import { createSecret, readSecret } from './state-file.js';
import type { AuthenticationOutcome, Authenticator, Caller, Refusal } from './types.js';

/** Audience of every token that opens the controller, as istiod's. */
export const TOKEN_AUDIENCE = 'istio-ca';
const ISSUER = 'culvert';
const FILE = 'token-key.pem';
const MAX_TOKEN_CHARS = 16 * 1024;

/** What a token is minted for. */
export interface TokenSubject {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly nodeName: string;
  readonly pod?: { readonly name: string; readonly uid: string };
}

/** The controller's own tokens for nodes without a Kubernetes API: the claims are those of a projected service account token. */
export class TokenAuthority implements Authenticator {
  readonly #keys: KeyPair;

  private constructor(keys: KeyPair) {
    this.#keys = keys;
  }

  /** The key kept in `stateDir`; made at first use. Throws CaError. */
  static load(stateDir: string): TokenAuthority {
    const file = join(stateDir, FILE);
    const key = () => generateKeyPair().privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const text = readSecret(file) ?? createSecret(file, key());
    return new TokenAuthority(keyPairOf(parseKey(file, text)));
  }

  /** A token valid from now for `lifetimeMs`. */
  async mint(subject: TokenSubject, lifetimeMs: number, nowMs = Date.now()): Promise<string> {
    const { namespace, serviceAccount, nodeName, pod } = subject;
    const nowSeconds = Math.floor(nowMs / 1000);
    const kubernetes = {
      namespace,
      serviceaccount: { name: serviceAccount },
      node: { name: nodeName },
      ...(pod === undefined ? {} : { pod }),
    };
    return new SignJWT({ 'kubernetes.io': kubernetes })
      .setProtectedHeader({ alg: 'ES256' })
      .setIssuer(ISSUER)
      .setSubject(`system:serviceaccount:${namespace}:${serviceAccount}`)
      .setAudience(TOKEN_AUDIENCE)
      .setIssuedAt(nowSeconds)
      .setNotBefore(nowSeconds - 60)
      .setExpirationTime(nowSeconds + Math.ceil(lifetimeMs / 1000))
      .sign(this.#keys.privateKey);
  }

  async authenticate(metadata: Metadata): Promise<AuthenticationOutcome> {
    const bearer = bearerOf(metadata);
    return typeof bearer === 'string' ? this.#verify(bearer) : bearer;
  }

  async #verify(token: string): Promise<AuthenticationOutcome> {
    try {
      const { payload } = await jwtVerify(token, this.#keys.publicKey, {
        algorithms: ['ES256'],
        issuer: ISSUER,
        audience: TOKEN_AUDIENCE,
        requiredClaims: ['exp', 'sub'],
      });
      const caller = callerOf(payload);
      return caller === null ? { refusal: 'token-invalid', message: 'claims do not fit' } : { caller };
    } catch (error) {
      return refusalOf(error);
    }
  }
}

/** The token of a call. */
export function bearerOf(metadata: Metadata): string | Refusal {
  const values = metadata.get('authorization');
  const bearer = /^Bearer +(\S+)$/i.exec(String(values[0] ?? ''));
  if (values.length !== 1 || bearer === null)
    return { refusal: 'token-missing', message: 'authorization must be one bearer token' };
  if (bearer[1]!.length > MAX_TOKEN_CHARS) return { refusal: 'token-invalid', message: 'token too long' };
  return bearer[1]!;
}

function parseKey(file: string, text: string): KeyObject {
  try {
    const key = createPrivateKey(text);
    if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('not an EC P-256 key');
    return key;
  } catch (error) {
    throw new CaError('CA_STATE', `${file}: ${messageOf(error)}`, { file }, error);
  }
}

function refusalOf(error: unknown): AuthenticationOutcome {
  if (error instanceof errors.JWTExpired) return { refusal: 'token-expired', message: 'token expired' };
  if (error instanceof errors.JWTClaimValidationFailed && error.claim === 'aud')
    return { refusal: 'token-audience', message: `token is not for the audience ${TOKEN_AUDIENCE}` };
  return { refusal: 'token-invalid', message: 'token is not valid' };
}

/** Null where subject and kubernetes.io claims do not say the same. */
function callerOf(payload: JWTPayload): Caller | null {
  const claims = recordOf(payload['kubernetes.io']);
  const namespace = textOf(claims['namespace']);
  const serviceAccount = textOf(recordOf(claims['serviceaccount'])['name']);
  if (namespace === null || serviceAccount === null) return null;
  if (payload.sub !== `system:serviceaccount:${namespace}:${serviceAccount}`) return null;
  const pod = recordOf(claims['pod']);
  const podName = textOf(pod['name']);
  const podUid = textOf(pod['uid']);
  if ((podName === null) !== (podUid === null)) return null;
  return {
    namespace,
    serviceAccount,
    nodeName: textOf(recordOf(claims['node'])['name']),
    nodeUid: null,
    pod: podName === null || podUid === null ? null : { name: podName, uid: podUid },
    expiresAtMs: payload.exp! * 1000,
  };
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}
