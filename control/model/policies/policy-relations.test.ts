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

describe('what a pod touches: the policies that tell where they are not enforced', () => {
  const inMesh = (name: string, metadata: object, status: object = {}) => {
    const { metadata: own, ...rest } = pod('shop', name, { app: 'web' });
    return { ...rest, metadata: { ...own, ...metadata }, status };
  };
  const namespace = (labels: object) => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'shop', labels },
  });
  const ambient = { 'istio.io/dataplane-mode': 'ambient' };
  const key = 'AuthorizationPolicy/shop/p';

  beforeEach(() => {
    put(
      namespace(ambient),
      policy('shop', 'p', selector({ app: 'web' })),
      policy('shop', 'bound', {
        targetRefs: [{ kind: 'Service', name: 'web' }],
      }),
    );
    changed();
  });

  test('one that is all in the mesh touches none; one that leaves it, comes back or ends does', () => {
    put(inMesh('new', {}));
    expect(changed()).toEqual(['Pod/shop/new']);
    put(inMesh('new', {}, { phase: 'Running' }));
    expect(changed()).toEqual(['Pod/shop/new']);
    const out = { labels: { app: 'web', 'istio.io/dataplane-mode': 'none' } };
    const all = ['AuthorizationPolicy/shop/bound', key, 'Pod/shop/new'];
    put(inMesh('new', out));
    expect(changed()).toEqual(all);
    put(inMesh('new', out, { phase: 'Running' }));
    expect(changed()).toEqual(['Pod/shop/new']);
    put(inMesh('new', { annotations: { 'traffic.sidecar.istio.io/excludeInboundPorts': '9090' } }));
    expect(changed()).toEqual(all);
    remove('Pod/shop/new');
    expect(changed()).toEqual(all);
  });

  test('the label of a namespace: policies of the root namespace that select there, too', () => {
    put(policy('istio-system', 'q', selector({ app: 'web' })));
    changed();
    put(namespace({}));
    expect(changed()).toContain('AuthorizationPolicy/istio-system/q');
  });
});
