import { Metadata } from '@grpc/grpc-js';
import { beforeEach, describe, expect, test } from '@jest/globals';
import { KubeError } from '../../mesh/kube/index.js';
import { createLog } from '../../mesh/log/index.js';
import type { AuthenticationOutcome } from '../ca/types.js';
import { TOKEN_REVIEW_DEFAULTS, TokenReviewAuthenticator, type TokenReviewOptions } from './index.js';

// The limits; what a real API server answers is in test/kubernetes/identity.test.ts.

const log = createLog({ level: 'silent', component: 'test' });
const EXTRA = 'authentication.kubernetes.io/';

let clockMs: number;
let asked: string[];
/** Of requests that are under way: how to answer. */
let answers: ((answer: unknown) => void)[];
let failures: ((error: unknown) => void)[];
let reviewed: string[];

beforeEach(() => {
  clockMs = 0;
  asked = [];
  answers = [];
  failures = [];
  reviewed = [];
});

function authenticator(more: Partial<TokenReviewOptions> = {}): TokenReviewAuthenticator {
  return new TokenReviewAuthenticator(
    { ...TOKEN_REVIEW_DEFAULTS, ...more },
    {
      client: {
        request: ({ body }) => {
          asked.push((body as { spec: { token: string } }).spec.token);
          return new Promise((resolve, reject) => {
            answers.push(resolve);
            failures.push(reject);
          });
        },
      },
      events: { reviewed: (outcome) => reviewed.push(outcome) },
      log,
      monotonicMs: () => clockMs,
      nowMs: () => 1_000_000,
    },
  );
}

const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const token = (jti: string, more: object = {}) =>
  `${encode({ alg: 'RS256' })}.${encode({ aud: ['istio-ca'], exp: 5000, jti, ...more })}.c2ln`;

function callOf(bearer: string): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${bearer}`);
  return metadata;
}

const user = (
  extra: Readonly<Record<string, string[]>> = {},
  username = 'system:serviceaccount:mesh:agent',
) => ({
  username,
  extra: {
    [`${EXTRA}pod-name`]: ['agent-1'],
    [`${EXTRA}pod-uid`]: ['p1'],
    [`${EXTRA}node-name`]: ['n1'],
    [`${EXTRA}node-uid`]: ['u1'],
    ...extra,
  },
});
const good = (more: object = {}) => ({
  status: { authenticated: true, audiences: ['istio-ca'], user: user(), ...more },
});
const settled = () => new Promise((resolve) => setImmediate(resolve));
const reasonOf = (outcome: AuthenticationOutcome) => ('refusal' in outcome ? outcome.refusal : 'let in');

test('who is meant: account, pod and node of the review, end of the token', async () => {
  const outcome = authenticator().authenticate(callOf(token('a')));
  await settled();
  answers[0]!(good());
  expect(await outcome).toEqual({
    caller: {
      namespace: 'mesh',
      serviceAccount: 'agent',
      nodeName: 'n1',
      nodeUid: 'u1',
      pod: { name: 'agent-1', uid: 'p1' },
      expiresAtMs: 5_000_000,
    },
  });
  expect(reviewed).toEqual(['authenticated']);
});

test('an answer counts for 10 s, good or bad; the same token at once is asked for once', async () => {
  const authn = authenticator();
  const both = [authn.authenticate(callOf(token('a'))), authn.authenticate(callOf(token('a')))];
  await settled();
  expect(asked).toHaveLength(1);
  clockMs = 1000; // it counts from the question on
  answers[0]!({ status: { authenticated: false, error: 'not known' } });
  expect((await Promise.all(both)).map(reasonOf)).toEqual(['token-invalid', 'token-invalid']);
  clockMs = 9999;
  expect(reasonOf(await authn.authenticate(callOf(token('a'))))).toBe('token-invalid');
  expect(asked).toHaveLength(1);
  clockMs = 10_000;
  const again = authn.authenticate(callOf(token('a')));
  await settled();
  answers[1]!(good());
  expect(reasonOf(await again)).toBe('let in');
});

test('the oldest answers go where there are too many', async () => {
  const authn = authenticator({ maxCached: 2 });
  for (const name of ['a', 'b', 'c']) {
    const outcome = authn.authenticate(callOf(token(name)));
    await settled();
    answers.at(-1)!(good());
    await outcome;
  }
  await authn.authenticate(callOf(token('c')));
  await authn.authenticate(callOf(token('b')));
  expect(asked).toHaveLength(3);
  void authn.authenticate(callOf(token('a')));
  await settled();
  expect(asked).toHaveLength(4);
});

test('no more than so many at once; of the rest a few wait, not for long', async () => {
  const authn = authenticator({ maxConcurrent: 2, maxWaiting: 2, timeoutMs: 4000 });
  const outcomes = ['a', 'b', 'c', 'd', 'e'].map((name) => authn.authenticate(callOf(token(name))));
  await settled();
  expect(asked).toEqual([token('a'), token('b')]);
  expect(reasonOf(await outcomes[4]!)).toBe('review-busy');
  answers[0]!(good());
  expect(reasonOf(await outcomes[0]!)).toBe('let in');
  await settled();
  expect(asked[2]).toBe(token('c'));
  clockMs = 4001;
  answers[1]!(good());
  expect(reasonOf(await outcomes[3]!)).toBe('review-busy'); // waited too long
  answers[2]!(good());
  expect(reasonOf(await outcomes[2]!)).toBe('let in');
  void authn.authenticate(callOf(token('f')));
  await settled();
  expect(asked[3]).toBe(token('f'));
});

test('an API server that cannot be asked lets nobody in, and nothing of that is kept', async () => {
  const authn = authenticator();
  for (const fail of [
    () => failures.at(-1)!(new KubeError('KUBE_UNREACHABLE', 'x')),
    () => answers.at(-1)!({ kind: 'Status' }),
  ]) {
    const outcome = authn.authenticate(callOf(token('a')));
    await settled();
    fail();
    expect(reasonOf(await outcome)).toBe('review-failed');
  }
  expect([asked.length, reviewed]).toEqual([2, ['failed', 'failed']]);
});

describe('refused without asking', () => {
  test.each([
    ['no token', 'x', 'token-invalid'],
    ['three parts of nothing', 'a.b.c', 'token-invalid'],
    ['no end', token('a', { exp: 'never' }), 'token-invalid'],
    ['another audience', token('a', { aud: ['x'] }), 'token-audience'],
    ['no audience', token('a', { aud: undefined }), 'token-audience'],
    ['a very long one', `${token('a')}${'x'.repeat(20_000)}`, 'token-invalid'],
  ])('%s', async (_name, bearer, reason) => {
    expect(reasonOf(await authenticator().authenticate(callOf(bearer)))).toBe(reason);
    expect(asked).toEqual([]);
  });

  test('no bearer at all', async () => {
    expect(reasonOf(await authenticator().authenticate(new Metadata()))).toBe('token-missing');
  });
});

describe('what the API server says', () => {
  test.each([
    ['expired', { authenticated: false, error: 'token has expired' }, 'token-expired'],
    ['authenticated, but for nobody in particular', { audiences: undefined }, 'token-audience'],
    ['authenticated for others', { audiences: ['x'] }, 'token-audience'],
    ['not authenticated, without a word', { authenticated: false }, 'token-invalid'],
    ['"true"', { authenticated: 'true' }, 'token-invalid'],
    ['a person', { user: user({}, 'jane') }, 'token-invalid'],
    ['an account of a strange form', { user: user({}, 'system:serviceaccount:mesh:a:b') }, 'token-invalid'],
    ['of no pod', { user: user({ [`${EXTRA}pod-uid`]: [] }) }, 'token-unbound'],
    ['of two pods', { user: user({ [`${EXTRA}pod-uid`]: ['a', 'b'] }) }, 'token-unbound'],
    ['of no node', { user: user({ [`${EXTRA}node-name`]: [] }) }, 'no-node'],
    ['of a node without uid', { user: user({ [`${EXTRA}node-uid`]: [''] }) }, 'no-node'],
  ])('%s', async (_name, status, reason) => {
    const outcome = authenticator().authenticate(callOf(token('a')));
    await settled();
    answers[0]!(good(status));
    expect(reasonOf(await outcome)).toBe(reason);
  });
});

test('a token that was just found good is not ended at once by a clock of ours that is ahead', async () => {
  const outcome = authenticator().authenticate(callOf(token('a', { exp: 900 })));
  await settled();
  answers[0]!(good());
  expect(await outcome).toMatchObject({ caller: { expiresAtMs: 1_060_000 } });
});
