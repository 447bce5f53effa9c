import { expect, test } from '@jest/globals';
import { IdlePolicies } from './idle-policies.js';
import { decodeObject, MODEL_DEFAULTS, Model } from './model/index.js';

const TYPO = 'AuthorizationPolicy/shop/typo';

function bed() {
  const model = new Model(MODEL_DEFAULTS, { onChange: () => {} });
  const told: (readonly string[])[] = [];
  const idle = new IdlePolicies(
    { sweepMs: 3_600_000, afterMs: 30 },
    { model, onChange: (keys) => told.push(keys) },
  );
  const put = (apiVersion: string, kind: string, metadata: object, spec: object = {}) => {
    const decoded = decodeObject({ apiVersion, kind, metadata, spec } as Parameters<typeof decodeObject>[0]);
    if (decoded.outcome !== 'object') throw new Error(JSON.stringify(decoded));
    model.apply({ upserted: new Map([[decoded.key, decoded.value]]), removed: [] });
  };
  const pod = (namespace: string, name: string, labels: object) => {
    put('v1', 'Pod', { namespace, name, labels });
    return () => model.apply({ upserted: new Map(), removed: [`Pod/${namespace}/${name}`] });
  };
  const policy = (kind: string, namespace: string, name: string, labels: object | null) =>
    put(
      'security.istio.io/v1',
      kind,
      { namespace, name },
      labels === null ? {} : { selector: { matchLabels: labels } },
    );
  return { model, idle, told, pod, policy };
}

test('what selects no pod when all has been seen is known at once; with pods, or without a selector, it is not', () => {
  const { model, idle, told, pod, policy } = bed();
  pod('shop', 'cart', { app: 'cart', tier: 'back' });
  policy('AuthorizationPolicy', 'shop', 'whole', null);
  policy('AuthorizationPolicy', 'shop', 'cart', { app: 'cart', tier: 'back' });
  policy('AuthorizationPolicy', 'shop', 'typo', { app: 'cart', tier: 'bakc' });
  policy('PeerAuthentication', 'other', 'cart', { app: 'cart' });
  policy('PeerAuthentication', 'istio-system', 'root', { app: 'crat' });
  policy('PeerAuthentication', 'istio-system', 'all', { tier: 'back' });
  idle.start();
  idle.stop();
  model.stop();
  expect(idle.notices.map(({ kind, name, reason }) => `${kind}/${name} ${reason}`)).toEqual(
    [TYPO, 'PeerAuthentication/istio-system/root', 'PeerAuthentication/other/cart'].map(
      (key) => `${key} selects no pod at present`,
    ),
  );
  expect(told).toEqual([]);
});

test('one that comes before its pods, or whose pods go for a moment, is not told of', () => {
  const { model, idle, told, pod, policy } = bed();
  policy('AuthorizationPolicy', 'shop', 'typo', { app: 'cart' });
  idle.look(0);
  const remove = pod('shop', 'cart', { app: 'cart' });
  idle.look(20);
  remove();
  for (const nowMs of [40, 60]) idle.look(nowMs);
  expect([told, idle.has(TYPO)]).toEqual([[], false]);
  idle.look(70);
  expect([told, idle.has(TYPO)]).toEqual([[[TYPO]], true]);
  pod('shop', 'cart', { app: 'cart' });
  idle.look(80);
  expect(idle.has(TYPO)).toBe(true);
  idle.look(110);
  expect([told.length, idle.notices]).toEqual([2, []]);
  model.stop();
});
