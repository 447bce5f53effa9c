import { createHash } from 'node:crypto';
import type { Metadata } from '@grpc/grpc-js';
import { messageOf } from '../../mesh/common/errors.js';
import { Gate } from '../../mesh/common/gate.js';
import type { ApiClient } from '../../mesh/kube/index.js';
import type { Log } from '../../mesh/log/index.js';
import { bearerOf, TOKEN_AUDIENCE } from '../ca/index.js';
import type { AuthenticationOutcome, Authenticator } from '../ca/types.js';
import { callerOf, type ReviewedUser, readClaims, type TokenClaims } from './claims.js';
import type { AuthnEvents } from './types.js';

export interface TokenReviewOptions {
  /** How long an answer of the API server counts: it is as old as that when a token is taken back. */
  readonly cacheMs: number;
  /** Answers that are kept; the oldest goes. */
  readonly maxCached: number;
  /** TokenReviews at once; so many more may wait. */
  readonly maxConcurrent: number;
  readonly maxWaiting: number;
  /** For one TokenReview, and for the wait before it. */
  readonly timeoutMs: number;
}

export const TOKEN_REVIEW_DEFAULTS: TokenReviewOptions = {
  cacheMs: 10_000,
  maxCached: 10_000,
  maxConcurrent: 32,
  maxWaiting: 2000,
  timeoutMs: 4000,
};

export interface TokenReviewDeps {
  readonly client: Pick<ApiClient, 'request'>;
  readonly events: AuthnEvents;
  readonly log: Log;
  /** Milliseconds that never jump; default performance.now. */
  readonly monotonicMs?: () => number;
  /** Unix milliseconds; default Date.now. */
  readonly nowMs?: () => number;
}

interface Cached {
  readonly outcome: AuthenticationOutcome;
  readonly untilMs: number;
}

const PATH = '/apis/authentication.k8s.io/v1/tokenreviews';
/** A token that the API server has just found good is taken for so long at least, though our clock may say that it has ended. */
const LEAST_LIFE_MS = 60_000;

/**
 * Who calls, by the service account token that it shows: the API server is asked (TokenReview, audience istio-ca), whose answer counts for a few
 * seconds. Whether the pod and the node of the token are still there is for the caller of this to say, by its own watch: the API server forgets too slowly.
 */
export class TokenReviewAuthenticator implements Authenticator {
  readonly #options: TokenReviewOptions;
  readonly #deps: TokenReviewDeps;
  readonly #monotonicMs: () => number;
  readonly #gate: Gate;
  /** By the token's hash, oldest first: tokens themselves are not kept. */
  readonly #cache = new Map<string, Cached>();
  readonly #asking = new Map<string, Promise<AuthenticationOutcome>>();

  constructor(options: TokenReviewOptions, deps: TokenReviewDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#monotonicMs = deps.monotonicMs ?? (() => performance.now());
    const { maxConcurrent: most, maxWaiting: mostWaiting, timeoutMs: maxWaitMs } = options;
    this.#gate = new Gate({ most, mostWaiting, maxWaitMs }, { nowMs: this.#monotonicMs });
  }

  async authenticate(metadata: Metadata): Promise<AuthenticationOutcome> {
    const bearer = bearerOf(metadata);
    if (typeof bearer !== 'string') return bearer;
    // Before anybody is asked: what can be seen without.
    const claims = readClaims(bearer);
    if (claims === null) return { refusal: 'token-invalid', message: 'no service account token' };
    if (!claims.audiences.includes(TOKEN_AUDIENCE))
      return { refusal: 'token-audience', message: `token is not for the audience ${TOKEN_AUDIENCE}` };
    const key = createHash('sha256').update(bearer).digest('base64');
    const cached = this.#cache.get(key);
    if (cached !== undefined && cached.untilMs > this.#monotonicMs()) return cached.outcome;
    const asked = this.#asking.get(key) ?? this.#ask(key, bearer, claims);
    return await asked;
  }

  /** All that show the same token meanwhile wait for the same answer. */
  #ask(key: string, token: string, claims: TokenClaims): Promise<AuthenticationOutcome> {
    const asked = this.#gate
      .pass(() => this.#review(key, token, claims))
      .then((outcome) => outcome ?? BUSY)
      .finally(() => this.#asking.delete(key));
    this.#asking.set(key, asked);
    return asked;
  }

  async #review(key: string, token: string, claims: TokenClaims): Promise<AuthenticationOutcome> {
    const { client, events, log, nowMs = Date.now } = this.#deps;
    const startedMs = this.#monotonicMs();
    const tookMs = () => this.#monotonicMs() - startedMs;
    try {
      const answer = await client.request({
        method: 'POST',
        path: PATH,
        body: {
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenReview',
          spec: { token, audiences: [TOKEN_AUDIENCE] },
        },
        signal: AbortSignal.timeout(this.#options.timeoutMs),
      });
      const expiresAtMs = Math.max(claims.expiresAtMs, nowMs() + LEAST_LIFE_MS);
      const outcome = outcomeOf(answer, expiresAtMs);
      events.reviewed('caller' in outcome ? 'authenticated' : 'refused', tookMs());
      this.#keep(key, { outcome, untilMs: startedMs + this.#options.cacheMs });
      return outcome;
    } catch (error) {
      events.reviewed('failed', tookMs());
      log.warn(
        { reason: messageOf(error) },
        'a token could not be reviewed; its caller is told to come back',
      );
      return { refusal: 'review-failed', message: 'the API server could not be asked; come back' };
    }
  }

  #keep(key: string, cached: Cached): void {
    this.#cache.delete(key);
    this.#cache.set(key, cached);
    for (const oldest of this.#cache.keys()) {
      if (this.#cache.size <= this.#options.maxCached) return;
      this.#cache.delete(oldest);
    }
  }
}

const BUSY: AuthenticationOutcome = {
  refusal: 'review-busy',
  message: 'too many tokens wait to be reviewed; come back',
};

/** @throws where it is no TokenReview */
function outcomeOf(answer: unknown, expiresAtMs: number): AuthenticationOutcome {
  const status = recordOf(recordOf(answer)['status']);
  if (Object.keys(status).length === 0) throw new Error('the answer to a TokenReview has no status');
  if (status['authenticated'] !== true) {
    const reason = textOf(status['error']).slice(0, 300) || 'the API server does not know the token';
    return { refusal: /\bexpired\b/.test(reason) ? 'token-expired' : 'token-invalid', message: reason };
  }
  // An API server that does not know of audiences would leave them out.
  if (!textsOf(status['audiences']).includes(TOKEN_AUDIENCE))
    return { refusal: 'token-audience', message: `token is not for the audience ${TOKEN_AUDIENCE}` };
  return callerOf(userOf(recordOf(status['user'])), expiresAtMs);
}

function userOf(user: Readonly<Record<string, unknown>>): ReviewedUser {
  const extra = Object.entries(recordOf(user['extra'])).map(
    ([name, values]) => [name, textsOf(values)] as const,
  );
  return { username: textOf(user['username']), extra: new Map(extra) };
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function textsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? (value as unknown[]).filter((one) => typeof one === 'string') : [];
}
