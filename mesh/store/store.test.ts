import { describe, expect, test } from '@jest/globals';
import { policyWith, serviceWith, updateWith, workloadWith } from './fixtures.js';
import { createStore } from './store.js';
import type { Store, StoreUpdate } from './types.js';

function storeWith(update: Partial<StoreUpdate>, preferredServiceNamespace?: string): Store {
  const store = createStore(preferredServiceNamespace === undefined ? {} : { preferredServiceNamespace });
  store.apply(updateWith(update));
  return store;
}

function vip(address: string, prefixLength: number | null = null, network = '') {
  return { network, address, prefixLength };
}

describe('workloads', () => {
  test('several on one address: a pod first, then HBONE, whatever the order', () => {
    const addresses = ['10.0.0.1'];
    const entry = workloadWith({
      uid: 'c/networking.istio.io/WorkloadEntry/a/e',
      addresses,
      tunnelProtocol: 'hbone',
    });
    const plainPod = workloadWith({ uid: 'c//Pod/a/plain', addresses });
    const hbonePod = workloadWith({ uid: 'c//Pod/a/tunnelled', addresses, tunnelProtocol: 'hbone' });
    for (const workloads of [
      [entry, plainPod, hbonePod],
      [hbonePod, plainPod, entry],
    ]) {
      const store = storeWith({ workloads });
      expect(store.workloadByAddress('', '10.0.0.1')).toBe(hbonePod);
      store.apply(updateWith({ removed: [hbonePod.uid] }));
      expect(store.workloadByAddress('', '10.0.0.1')).toBe(plainPod);
      store.apply(updateWith({ removed: [plainPod.uid] }));
      expect(store.workloadByAddress('', '10.0.0.1')).toBe(entry);
    }
  });

  test('host-network ones are not found by address, others only on their network', () => {
    const store = storeWith({
      workloads: [
        workloadWith({ uid: 'host', addresses: ['10.0.0.1'], hostNetwork: true }),
        workloadWith({ uid: 'far', addresses: ['10.0.0.2'], network: 'net2' }),
      ],
    });
    expect(store.workloadByAddress('', '10.0.0.1')).toBeUndefined();
    expect(store.workloadByAddress('', '10.0.0.2')).toBeUndefined();
    expect(store.workloadByAddress('net2', '10.0.0.2')?.uid).toBe('far');
    expect(store.workloadByUid('host')).toBeDefined();
  });

  test('of a pod: namespace, name and service account must all agree', () => {
    const store = storeWith({
      workloads: [
        workloadWith({ uid: 'c//Pod/a/web', name: 'web', namespace: 'a', serviceAccount: 'web' }),
        workloadWith({ uid: 'entry', name: 'web', namespace: 'a', serviceAccount: 'web' }),
      ],
    });
    expect(store.workloadOfPod('a', 'web', 'web')?.uid).toBe('c//Pod/a/web');
    expect(store.workloadOfPod('a', 'web', 'default')).toBeUndefined();
    expect(store.workloadOfPod('b', 'web', 'web')).toBeUndefined();
  });

  test('a changed workload leaves nothing of its old self', () => {
    const store = storeWith({
      workloads: [
        workloadWith({ uid: 'w', name: 'n1', addresses: ['10.0.0.1'], services: new Map([['a/s1', []]]) }),
      ],
    });
    store.apply(updateWith({ workloads: [workloadWith({ uid: 'w', name: 'n2', addresses: ['10.0.0.2'] })] }));
    expect(store.workloadByAddress('', '10.0.0.1')).toBeUndefined();
    expect(store.workloadOfPod('default', 'n1', 'default')).toBeUndefined();
    expect(store.endpointsOf({ namespace: 'a', hostname: 's1' })).toEqual([]);
    expect(store.workloadByAddress('', '10.0.0.2')?.name).toBe('n2');
  });
});

describe('services', () => {
  test('of one VIP: own namespace, canonical, preferred namespace, then the lowest name', () => {
    const vips = [vip('10.96.0.1')];
    const own = serviceWith({ hostname: 's', namespace: 'client', vips });
    const canonical = serviceWith({ hostname: 's', namespace: 'm', canonical: true, vips });
    const preferred = serviceWith({ hostname: 's', namespace: 'preferred', vips });
    const [low, high] = [
      serviceWith({ hostname: 's1', namespace: 'b', vips }),
      serviceWith({ hostname: 's2', namespace: 'b', vips }),
    ];
    const order = [own, canonical, preferred, low, high];
    const store = storeWith({ services: [...order].reverse() }, 'preferred');
    for (const service of order) {
      expect(store.serviceByVip('', '10.96.0.1', 'client')).toBe(service);
      store.apply(updateWith({ removed: [`${service.namespace}/${service.hostname}`] }));
    }
    expect(store.serviceByVip('', '10.96.0.1', 'client')).toBeUndefined();
  });

  test("a Service's address is not drawn away by what another namespace declares, canonical or not", () => {
    const vips = [vip('10.96.0.1')];
    const service = serviceWith({
      name: 'pay',
      namespace: 'shop',
      hostname: 'pay.shop.svc.cluster.local',
      canonical: true,
      vips,
    });
    const entry = serviceWith({ name: 'e', namespace: 'a', hostname: 'e.test', canonical: true, vips });
    const store = storeWith({ services: [entry, service] });
    expect(store.serviceByVip('', '10.96.0.1', 'client')).toBe(service);
    expect(store.serviceByVip('', '10.96.0.1', 'a')).toBe(entry);
  });

  test.each([
    ['its address', vip('10.0.0.1')],
    ['a range that holds it', vip('10.0.0.0', 8)],
  ])("a pod is not hidden from others by another namespace's service of %s", (_what, range) => {
    const entry = serviceWith({ namespace: 'a', hostname: 'e.test', canonical: true, vips: [range] });
    const pod = (uid: string) => workloadWith({ uid, namespace: 'shop', addresses: ['10.0.0.1'] });
    const store = storeWith({ services: [entry], workloads: [pod('c//Pod/shop/p')] });
    expect(store.serviceByVip('', '10.0.0.1', 'client')).toBeUndefined();
    expect(store.serviceByVip('', '10.0.0.1', 'a')).toBe(entry);
    store.apply(updateWith({ removed: ['c//Pod/shop/p'], workloads: [pod('c/other/p')] }));
    expect(store.serviceByVip('', '10.0.0.1', 'client')).toBe(entry);
  });

  test('CIDR VIPs come after exact ones: own namespace, longest prefix, canonical', () => {
    const wide = serviceWith({ hostname: 'wide', namespace: 'client', vips: [vip('10.0.0.0', 8)] });
    const narrow = serviceWith({ hostname: 'narrow', namespace: 'a', vips: [vip('10.1.0.0', 16)] });
    const canonical = serviceWith({
      hostname: 'wide',
      namespace: 'z',
      canonical: true,
      vips: [vip('10.9.9.9', 8)],
    });
    const exact = serviceWith({ hostname: 'exact', namespace: 'a', vips: [vip('10.1.2.3')] });
    const store = storeWith({ services: [canonical, narrow, wide, exact] });
    expect(store.serviceByVip('', '10.1.2.3', 'client')).toBe(exact);
    expect(store.serviceByVip('', '10.1.2.4', 'client')).toBe(wide);
    expect(store.serviceByVip('', '10.1.2.4', 'other')).toBe(narrow);
    expect(store.serviceByVip('', '10.2.0.1', 'other')).toBe(canonical);
    expect(store.serviceByVip('', '11.0.0.1', 'other')).toBeUndefined();
    expect(store.serviceByVip('net2', '10.1.2.4', 'other')).toBeUndefined();
  });

  test('an IPv6 CIDR says nothing of IPv4, nor the other way round; /0 is everything of its family', () => {
    const all4 = serviceWith({ hostname: 'all4', vips: [vip('0.0.0.0', 0)] });
    const some6 = serviceWith({ hostname: 'some6', vips: [vip('2001:db8::', 33)] });
    const store = storeWith({ services: [all4, some6] });
    expect(store.serviceByVip('', '203.0.113.1', 'x')).toBe(all4);
    expect(store.serviceByVip('', '2001:db8:7fff::1', 'x')).toBe(some6);
    expect(store.serviceByVip('', '2001:db8:8000::1', 'x')).toBeUndefined();
    expect(store.serviceByVip('', 'not an address', 'x')).toBeUndefined();
    store.apply(updateWith({ removed: ['default/all4'] }));
    expect(store.serviceByVip('', '203.0.113.1', 'x')).toBeUndefined();
  });

  test('visible in their own namespace only', () => {
    const hidden = serviceWith({
      hostname: 's',
      namespace: 'a',
      visibility: 'namespace',
      vips: [vip('10.96.0.1')],
    });
    const store = storeWith({ services: [hidden] });
    expect(store.serviceByVip('', '10.96.0.1', 'a')).toBe(hidden);
    expect(store.serviceByVip('', '10.96.0.1', 'b')).toBeUndefined();
  });

  test('endpoints may come before their service', () => {
    const endpoint = workloadWith({
      uid: 'w',
      services: new Map([['a/s', [{ servicePort: 80, targetPort: 8080 }]]]),
    });
    const store = storeWith({ workloads: [endpoint] });
    const service = serviceWith({ hostname: 's', namespace: 'a' });
    store.apply(updateWith({ services: [service] }));
    expect(store.endpointsOf(service)).toEqual([endpoint]);
    expect(store.serviceByHostname('a', 's')).toBe(service);
  });
});

describe('updates', () => {
  test('a snapshot replaces everything, a delta only what it names', () => {
    const store = storeWith({
      workloads: [workloadWith({ uid: 'w1', addresses: ['10.0.0.1'] })],
      services: [serviceWith({ hostname: 's1', vips: [vip('10.96.0.1'), vip('10.97.0.0', 16)] })],
      policies: [policyWith({ key: 'default/p' })],
    });
    store.apply(updateWith({ workloads: [workloadWith({ uid: 'w2' })] }));
    expect(store.workloadByUid('w1')).toBeDefined();
    store.apply(updateWith({ snapshot: true, workloads: [workloadWith({ uid: 'w3' })] }));
    expect(store.snapshot()).toMatchObject({ workloads: [{ uid: 'w3' }], services: [], policies: [] });
    expect(store.workloadByAddress('', '10.0.0.1')).toBeUndefined();
    expect(store.serviceByVip('', '10.96.0.1', 'default')).toBeUndefined();
    expect(store.serviceByVip('', '10.97.1.1', 'default')).toBeUndefined();
    expect(store.policiesOf(store.workloadByUid('w3')!).policies).toEqual([]);
  });

  test('a name that is removed and sent in one update stays', () => {
    const store = storeWith({ workloads: [workloadWith({ uid: 'w' })] });
    store.apply(updateWith({ removed: ['w'], workloads: [workloadWith({ uid: 'w', name: 'new' })] }));
    expect(store.workloadByUid('w')?.name).toBe('new');
  });

  test('a snapshot survives structured cloning, as it takes to a worker', () => {
    const store = storeWith({
      workloads: [
        workloadWith({ uid: 'w', services: new Map([['default/s', [{ servicePort: 1, targetPort: 2 }]]]) }),
      ],
    });
    const copy = createStore();
    copy.apply(structuredClone(store.snapshot()));
    expect(copy.snapshot()).toEqual(store.snapshot());
    expect(copy.endpointsOf({ namespace: 'default', hostname: 's' })).toHaveLength(1);
  });

  test('10,000 workloads are applied in well under a second', () => {
    const workloads = Array.from({ length: 10_000 }, (_, i) =>
      workloadWith({
        uid: `c//Pod/ns${i % 50}/pod-${i}`,
        addresses: [`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`],
        services: new Map([
          [`ns${i % 50}/s${i % 500}`, []],
          ['shared/all', []],
        ]),
      }),
    );
    const store = createStore();
    const startedAt = performance.now();
    store.apply(updateWith({ workloads }));
    store.apply(updateWith({ workloads: workloads.map((workload) => ({ ...workload, healthy: false })) }));
    expect(performance.now() - startedAt).toBeLessThan(2_000);
    expect(store.endpointsOf({ namespace: 'shared', hostname: 'all' })).toHaveLength(10_000);
  });
});

describe('policies of a workload', () => {
  const workload = workloadWith({ uid: 'w', namespace: 'shop', authorizationPolicies: ['shop/named'] });
  const named = policyWith({ key: 'shop/named', scope: 'workload-selector' });
  const ofNamespace = policyWith({ key: 'shop/ns' });

  test.each([
    ['one that it names', [named], ['shop/named'], []],
    ['one that it names but that is not there', [], [], ['shop/named']],
    ['one of its namespace', [named, ofNamespace], ['shop/named', 'shop/ns'], []],
    ['not one of another namespace', [named, policyWith({ key: 'other/ns' })], ['shop/named'], []],
    [
      'a global one, whatever its namespace',
      [named, policyWith({ key: 'root/all', scope: 'global' })],
      ['root/all', 'shop/named'],
      [],
    ],
    ['not one that it does not name', [named, { ...named, key: 'shop/other' }], ['shop/named'], []],
    [
      'one that it names, once, whatever its scope',
      [{ ...named, scope: 'global' as const }],
      ['shop/named'],
      [],
    ],
  ])('%s', (_what, policies, keys, missing) => {
    const store = storeWith({ workloads: [workload], policies });
    const set = store.policiesOf(workload);
    expect({ keys: set.policies.map((policy) => policy.key), missing: set.missing }).toEqual({
      keys,
      missing,
    });
  });

  test('are not known before the controller has told of them, whether or not it has any', () => {
    const store = createStore();
    const isComplete = () => store.policiesOf(workload).isComplete;
    store.apply(updateWith({ workloads: [workload], policiesAreComplete: false }));
    expect(isComplete()).toBe(false);
    const copy = createStore();
    copy.apply(store.snapshot());
    expect(copy.policiesOf(workload).isComplete).toBe(false);
    store.apply(updateWith({ policiesAreComplete: true }));
    store.apply(updateWith({ workloads: [workload], policiesAreComplete: false }));
    expect(isComplete()).toBe(true);
    store.apply({ ...store.snapshot(), policiesAreComplete: false });
    expect(isComplete()).toBe(false);
  });

  test('are one object for all to which the same apply, and another once one of them changes', () => {
    const free = workloadWith({ uid: 'v', namespace: 'shop' });
    const far = workloadWith({ uid: 'x', namespace: 'far' });
    const root = policyWith({ key: 'root/all', scope: 'global' });
    const store = storeWith({ policies: [root] });
    const before = store.policiesOf(free);
    expect(store.policiesOf(far)).toBe(before);
    expect(store.policiesOf({ ...free, uid: 'w' })).toBe(before);
    store.apply(updateWith({ policies: [ofNamespace] }));
    const after = store.policiesOf(free);
    expect(after.policies).toEqual([root, ofNamespace]);
    expect(store.policiesOf(far)).toBe(before);
    store.apply(updateWith({ policies: [named, policyWith({ key: 'other/ns' })] }));
    expect(store.policiesOf(free)).toBe(after);
    store.apply(updateWith({ policies: [{ ...ofNamespace, action: 'allow' }] }));
    expect(store.policiesOf(free)).not.toBe(after);
    store.apply(updateWith({ removedPolicies: ['shop/ns'] }));
    expect(store.policiesOf(free)).toBe(before);
    store.apply(updateWith({ removedPolicies: ['root/all'] }));
    expect(store.policiesOf(free).policies).toEqual([]);
  });
});
