import { beforeEach, describe, expect, test } from '@jest/globals';
import { decodeObject, type MeshObject, MODEL_DEFAULTS, Model, type ModelChange } from '../index.js';

let changes: ModelChange[];
let model: Model;

beforeEach(() => {
  changes = [];
  model = new Model(MODEL_DEFAULTS, { onChange: (change) => changes.push(change) });
  put(
    pod('shop', 'web', { app: 'web', tier: 'front' }),
    pod('shop', 'cart', { app: 'cart', tier: 'back' }),
    pod('other', 'web', { app: 'web' }),
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web', namespace: 'shop' },
      spec: { selector: { app: 'web' } },
    },
  );
  changed();
});

const pod = (namespace: string, name: string, labels: object) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace, labels },
});

const policy = (namespace: string, name: string, spec: object, kind = 'AuthorizationPolicy') => ({
  apiVersion: 'security.istio.io/v1',
  kind,
  metadata: { name, namespace },
  spec,
});

const selector = (labels: object) => ({ selector: { matchLabels: labels } });

function put(...manifests: readonly Parameters<typeof decodeObject>[0][]): void {
  const upserted = new Map<string, MeshObject>();
  for (const manifest of manifests) {
    const decoded = decodeObject(manifest);
    if (decoded.outcome !== 'object') throw new Error(JSON.stringify(decoded));
    upserted.set(decoded.key, decoded.value);
  }
  model.apply({ upserted, removed: [] });
}

function remove(key: string): void {
  model.apply({ upserted: new Map(), removed: [key] });
}

/** Pods and policies touched since the last call. */
function changed(): string[] {
  model.flush();
  const last = changes.splice(0).at(-1);
  return last === undefined ? [] : [...last.pods, ...last.policies].sort();
}

describe('what a policy touches', () => {
  test('with a selector: whom it takes, now or before; a change of its rules only itself', () => {
    const key = 'AuthorizationPolicy/shop/p';
    put(policy('shop', 'p', selector({ app: 'web' })));
    expect(changed()).toEqual([key, 'Pod/shop/web']);
    put(policy('shop', 'p', { ...selector({ app: 'web' }), rules: [{}] }));
    expect(changed()).toEqual([key]);
    put(policy('shop', 'p', { ...selector({ app: 'web' }), action: 'DENY', rules: [{}] }));
    expect(changed()).toEqual([key]);
    put(policy('shop', 'p', { ...selector({ app: 'web' }), action: 'AUDIT', rules: [{}] }));
    expect(changed()).toEqual([key, 'Pod/shop/web']);
    put(policy('shop', 'p', selector({ tier: 'back' })));
    expect(changed()).toEqual([key, 'Pod/shop/cart', 'Pod/shop/web']);
    remove(key);
    expect(changed()).toEqual([key, 'Pod/shop/cart']);
  });

  test('of a namespace or the mesh: itself; with a selector in the root namespace, whom it takes anywhere', () => {
    put(policy('shop', 'p', { rules: [{}] }));
    expect(changed()).toEqual(['AuthorizationPolicy/shop/p']);
    put(policy('istio-system', 'p', { rules: [{}] }));
    expect(changed()).toEqual(['AuthorizationPolicy/istio-system/p']);
    put(policy('istio-system', 'p', selector({ app: 'web' })));
    expect(changed()).toEqual(['AuthorizationPolicy/istio-system/p', 'Pod/other/web', 'Pod/shop/web']);
  });

  test('bound to a service: its pods; and the service touches the policy', () => {
    const key = 'AuthorizationPolicy/shop/p';
    put(policy('shop', 'p', { targetRefs: [{ kind: 'Service', name: 'web' }] }));
    expect(changed()).toEqual([key, 'Pod/shop/web']);
    remove('Service/shop/web');
    expect(changed()).toEqual([key, 'Pod/shop/web']);
  });

  test('PeerAuthentication: what inherits from it', () => {
    const key = (name: string) => `PeerAuthentication/${name}`;
    const peer = (namespace: string, name: string, spec: object) =>
      put(policy(namespace, name, spec, 'PeerAuthentication'));
    peer('shop', 'web', { ...selector({ app: 'web' }), mtls: { mode: 'STRICT' } });
    expect(changed()).toEqual([key('shop/web'), 'Pod/shop/web'].sort());
    peer('shop', 'default', { mtls: { mode: 'STRICT' } });
    expect(changed()).toEqual([key('shop/default'), key('shop/web'), 'Pod/shop/cart', 'Pod/shop/web']);
    peer('istio-system', 'default', { mtls: { mode: 'STRICT' } });
    expect(changed()).toEqual([
      key('istio-system/default'),
      key('shop/default'),
      key('shop/web'),
      'Pod/other/web',
      'Pod/shop/cart',
      'Pod/shop/web',
    ]);
  });

  test('a pod that comes finds the policies that take it; nothing is kept of policies that are gone', () => {
    put(
      policy('shop', 'p', selector({ app: 'web', tier: 'front' })),
      policy('istio-system', 'q', selector({ app: 'web' })),
    );
    const names = (namespace: string, labels: Record<string, string>) =>
      model.policies.selecting({ namespace, labels }).map(({ name }) => name);
    expect(names('shop', { app: 'web', tier: 'front' }).sort()).toEqual(['p', 'q']);
    expect(names('shop', { app: 'web' })).toEqual(['q']);
    expect(names('other', { app: 'web', tier: 'front' })).toEqual(['q']);
    remove('AuthorizationPolicy/shop/p');
    remove('AuthorizationPolicy/istio-system/q');
    expect(names('shop', { app: 'web', tier: 'front' })).toEqual([]);
  });
});
