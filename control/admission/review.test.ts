import { describe, expect, test } from '@jest/globals';
import { TRANSLATE_DEFAULTS } from '../translate/index.js';
import { review } from './review.js';

const policy = (spec: unknown, metadata: object = {}) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name: 'one', namespace: 'shop', ...metadata },
  spec,
});
const reviewOf = (object: unknown, oldObject: unknown = null) =>
  review(
    { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request: { uid: 'u', object, oldObject } },
    TRANSLATE_DEFAULTS,
  );

describe('review', () => {
  test('a sound object is accepted without a word', () => {
    expect(reviewOf(policy({ rules: [{}] }))).toEqual({ uid: 'u', allowed: true });
  });

  test('what the controller cannot read is refused: object, field, reason', () => {
    const answer = reviewOf(policy({ action: 'PERMIT', rules: [{ from: 'everywhere' }] }));
    expect(answer).toMatchObject({ uid: 'u', allowed: false, status: { code: 400, reason: 'BadRequest' } });
    expect(answer?.status?.message).toMatch(/^AuthorizationPolicy shop\/one: spec\.action: must be one of/);
    expect(answer?.status?.details?.causes[0]).toMatchObject({ field: 'spec.action' });
  });

  test('one whose name is yet to be generated is no less looked at', () => {
    const object = policy({ action: 'PERMIT' }, { name: undefined, generateName: 'one-' });
    expect(reviewOf(object)).toMatchObject({ allowed: false });
  });

  test.each([
    ['what acts at L7 only', policy({ rules: [{ to: [{ operation: { methods: ['GET'] } }] }] }), /methods/],
    [
      'a mode of mutual TLS that is as another',
      {
        ...policy({ mtls: { mode: 'DISABLE' } }),
        kind: 'PeerAuthentication',
      },
      /spec\.mtls\.mode: .*PERMISSIVE/,
    ],
    [
      'fields of a DestinationRule',
      {
        ...policy({ host: 'cart', subsets: [] }),
        apiVersion: 'networking.istio.io/v1',
        kind: 'DestinationRule',
      },
      /spec\.subsets/,
    ],
    [
      'a kind that is not read',
      { ...policy({}), apiVersion: 'networking.istio.io/v1', kind: 'VirtualService' },
      /VirtualService/,
    ],
  ])('%s is accepted with a warning', (_name, object, expected) => {
    const answer = reviewOf(object);
    expect(answer?.allowed).toBe(true);
    expect(answer?.warnings?.[0]).toMatch(expected);
  });

  test('a target that may come later is no reason for a warning that it is not there', () => {
    const answer = reviewOf(
      policy({ targetRefs: [{ kind: 'Service', group: '', name: 'cart' }], rules: [{}] }),
    );
    expect(answer?.warnings?.join()).not.toMatch(/not there/);
  });

  test('warnings are few and short', () => {
    const rules = Array.from({ length: 50 }, () => ({ to: [{ operation: { paths: ['/x'.repeat(500)] } }] }));
    const { warnings = [] } = reviewOf(policy({ rules }))!;
    expect(warnings).toHaveLength(11);
    expect(Math.max(...warnings.map(({ length }) => length))).toBeLessThanOrEqual(250);
    expect(warnings.at(-1)).toMatch(/^and 40 more/);
  });

  test('what was invalid before may change its labels and lose its finalizers, and not be made invalid otherwise', () => {
    const before = policy({ action: 'PERMIT' });
    const relabelled = policy({ action: 'PERMIT' }, { labels: { a: 'b' } });
    expect(reviewOf(relabelled, before)).toMatchObject({
      allowed: true,
      warnings: [expect.stringMatching(/spec\.action/)],
    });
    const going = policy({ action: 'PERMIT' }, { deletionTimestamp: '2026-01-01T00:00:00Z' });
    expect(reviewOf(going, before)?.allowed).toBe(true);
    expect(reviewOf(policy({ action: 'FORBID' }), before)?.allowed).toBe(false);
    const worse = policy({ action: 'PERMIT' }, { annotations: { 'istio.io/dry-run': 'maybe' } });
    expect(reviewOf(worse, before)?.allowed).toBe(false);
  });

  test.each([
    [null],
    ['text'],
    [{}],
    [{ apiVersion: 'admission.k8s.io/v1beta1', request: { uid: 'u' } }],
    [{ apiVersion: 'admission.k8s.io/v1', request: {} }],
  ])('is none of these: %j', (body) => {
    expect(review(body, TRANSLATE_DEFAULTS)).toBeNull();
  });

  test('deletions, and objects whose name is yet to be made, are let through', () => {
    expect(reviewOf(null)).toEqual({ uid: 'u', allowed: true });
    expect(reviewOf({ ...policy({}), metadata: { generateName: 'x-' } })).toEqual({
      uid: 'u',
      allowed: true,
    });
  });
});
