import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { policyWith, serviceWith, updateWith, workloadWith } from './fixtures.js';
import { partsOf, sizeOf } from './parts.js';
import { createStore } from './store.js';
import type { AuthorizationPolicy, Service, Store, StoreUpdate, Workload } from './types.js';

/** The same answers by going through everything each time. Rules of sheet 6 as sorted lists. */
class NaiveStore implements Omit<Store, 'stage'> {
  #workloads: Workload[] = [];
  #services: Service[] = [];
  #policies: AuthorizationPolicy[] = [];
  #policiesAreComplete = false;

  apply(update: StoreUpdate): void {
    this.#policiesAreComplete = update.snapshot
      ? update.policiesAreComplete!
      : this.#policiesAreComplete || update.policiesAreComplete!;
    if (update.snapshot) [this.#workloads, this.#services, this.#policies] = [[], [], []];
    for (const name of update.removed) {
      if (this.workloadByUid(name))
        this.#workloads = this.#workloads.filter((workload) => workload.uid !== name);
      else this.#services = this.#services.filter((service) => nameOf(service) !== name);
    }
    this.#policies = this.#policies.filter((policy) => !update.removedPolicies.includes(policy.key));
    this.#workloads = replaced(this.#workloads, update.workloads, (workload) => workload.uid);
    this.#services = replaced(this.#services, update.services, nameOf);
    this.#policies = replaced(this.#policies, update.policies, (policy) => policy.key);
  }

  snapshot(): StoreUpdate {
    return updateWith({
      snapshot: true,
      workloads: this.#workloads,
      services: this.#services,
      policies: this.#policies,
      policiesAreComplete: this.#policiesAreComplete,
    });
  }

  workloadByUid(uid: string) {
    return this.#workloads.find((workload) => workload.uid === uid);
  }

  workloadOfPod(namespace: string, name: string, serviceAccount: string) {
    return bestWorkload(
      this.#workloads.filter(
        (w) => w.namespace === namespace && w.name === name && w.serviceAccount === serviceAccount,
      ),
    );
  }

  workloadByAddress(network: string, address: string) {
    return bestWorkload(
      this.#workloads.filter((w) => !w.hostNetwork && w.network === network && w.addresses.includes(address)),
    );
  }

  serviceByVip(network: string, address: string, namespace: string) {
    const service = this.#serviceOf(network, address, namespace);
    const there = this.workloadByAddress(network, address);
    const namespaces = [namespace, there?.namespace];
    if (there?.uid.includes('//Pod/') && service !== undefined && !namespaces.includes(service.namespace))
      return undefined;
    return service;
  }

  #serviceOf(network: string, address: string, namespace: string) {
    const visible = this.#services.filter((s) => s.visibility === 'public' || s.namespace === namespace);
    const vips = visible.flatMap((service) => service.vips.map((vip) => ({ service, vip })));
    const exact = vips.filter(
      ({ vip }) => vip.prefixLength === null && vip.network === network && vip.address === address,
    );
    const rank = (s: Service) => [
      s.namespace !== namespace,
      !s.canonical,
      !s.hostname.startsWith(`${s.name}.${s.namespace}.svc.`),
      s.namespace !== 'preferred',
      nameOf(s),
    ];
    if (exact.length > 0) return sorted(exact, ({ service }) => rank(service))[0]!.service;
    const inside = vips.filter(
      ({ vip }) =>
        vip.prefixLength !== null &&
        vip.network === network &&
        contains(vip.address, vip.prefixLength, address),
    );
    const byPrefix = sorted(inside, ({ service: s, vip }) => [
      s.namespace !== namespace,
      -vip.prefixLength!,
      !s.canonical,
      nameOf(s),
    ]);
    return byPrefix[0]?.service;
  }

  serviceByHostname(namespace: string, hostname: string) {
    return this.#services.find((service) => service.namespace === namespace && service.hostname === hostname);
  }

  servicesByHostname(hostname: string) {
    return this.#services.filter((service) => service.hostname === hostname);
  }

  endpointsOf(service: { namespace: string; hostname: string }) {
    return this.#workloads.filter((workload) => workload.services.has(nameOf(service)));
  }

  policiesOf(workload: Workload) {
    const named = workload.authorizationPolicies;
    const policies = this.#policies.filter(
      ({ key, scope, namespace }) =>
        named.includes(key) ||
        scope === 'global' ||
        (scope === 'namespace' && namespace === workload.namespace),
    );
    const missing = named.filter((key) => !this.#policies.some((policy) => policy.key === key));
    const isComplete = this.#policiesAreComplete;
    return { policies: sorted(policies, (policy) => [policy.key]), missing: [...missing].sort(), isComplete };
  }
}

function nameOf(service: { namespace: string; hostname: string }): string {
  return `${service.namespace}/${service.hostname}`;
}

function replaced<Item>(
  items: readonly Item[],
  changes: readonly Item[],
  keyOf: (item: Item) => string,
): Item[] {
  return [...new Map([...items, ...changes].map((item) => [keyOf(item), item])).values()];
}

function bestWorkload(candidates: readonly Workload[]): Workload | undefined {
  return sorted(candidates, (w) => [!w.uid.includes('//Pod/'), w.tunnelProtocol !== 'hbone', w.uid])[0];
}

function sorted<Item>(items: readonly Item[], rank: (item: Item) => (boolean | number | string)[]): Item[] {
  return [...items].sort((a, b) => {
    const [ranksA, ranksB] = [rank(a), rank(b)];
    const at = ranksA.findIndex((value, i) => value !== ranksB[i]);
    return at < 0 ? 0 : ranksA[at]! < ranksB[at]! ? -1 : 1;
  });
}

function contains(network: string, prefixLength: number, address: string): boolean {
  const bits = (text: string) =>
    text
      .split('.')
      .map((part) => Number(part).toString(2).padStart(8, '0'))
      .join('');
  return bits(network).slice(0, prefixLength) === bits(address).slice(0, prefixLength);
}

// Few values of everything, so that objects meet.
const NAMESPACES = ['a', 'b', 'preferred'];
const NETWORKS = ['', 'net2'];
const ADDRESSES = ['10.0.0.1', '10.0.0.2', '10.0.1.1', '10.1.0.1'];
const HOSTNAMES = ['s1', 's2'];
const UIDS = ['c//Pod/a/p1', 'c//Pod/a/p2', 'c/other/a/e1', 'c/other/b/e2', 'a/s1'];
const POLICIES = ['a/p', 'b/p', 'preferred/p'];
const SERVICE_KEYS = NAMESPACES.flatMap((namespace) =>
  HOSTNAMES.map((hostname) => `${namespace}/${hostname}`),
);
const pick = <Value>(values: readonly Value[]) => fc.constantFrom(...values);

const workload = fc
  .record({
    uid: pick(UIDS),
    name: pick(['p1', 'p2']),
    namespace: pick(NAMESPACES),
    serviceAccount: pick(['sa1', 'sa2']),
    network: pick(NETWORKS),
    addresses: fc.uniqueArray(pick(ADDRESSES), { maxLength: 2 }),
    tunnelProtocol: pick(['none', 'hbone'] as const),
    hostNetwork: fc.boolean(),
    authorizationPolicies: fc.uniqueArray(pick(POLICIES), { maxLength: 2 }),
    services: fc
      .uniqueArray(pick(SERVICE_KEYS), { maxLength: 3 })
      .map((keys) => new Map(keys.map((key) => [key, []]))),
  })
  .map(workloadWith);
const service = fc
  .record({
    namespace: pick(NAMESPACES),
    hostname: pick(HOSTNAMES),
    canonical: fc.boolean(),
    visibility: pick(['public', 'namespace'] as const),
    vips: fc.array(
      fc.record({
        network: pick(NETWORKS),
        address: pick(ADDRESSES),
        prefixLength: pick([null, null, 0, 8, 16, 24, 31]),
      }),
      { maxLength: 3 },
    ),
  })
  .map(serviceWith);
const policy = fc
  .record({
    key: pick(POLICIES),
    namespace: pick(NAMESPACES),
    scope: pick(['global', 'namespace', 'workload-selector'] as const),
    dryRun: fc.boolean(),
  })
  .map(policyWith);
const update: fc.Arbitrary<StoreUpdate> = fc.record({
  snapshot: fc.integer({ min: 0, max: 9 }).map((roll) => roll === 0),
  workloads: fc.array(workload, { maxLength: 4 }),
  services: fc.array(service, { maxLength: 3 }),
  policies: fc.array(policy, { maxLength: 1 }),
  policiesAreComplete: fc.boolean(),
  removed: fc.array(pick([...UIDS, ...SERVICE_KEYS]), { maxLength: 2 }),
  removedPolicies: fc.array(pick(POLICIES), { maxLength: 1 }),
});

function answersOf(store: Omit<Store, 'stage'>): unknown {
  const endpoints = SERVICE_KEYS.map((key) => {
    const [namespace, hostname] = key.split('/') as [string, string];
    return [store.serviceByHostname(namespace, hostname), uidsOf(store.endpointsOf({ namespace, hostname }))];
  });
  const { workloads } = store.snapshot();
  return {
    byUid: UIDS.map((uid) => store.workloadByUid(uid)),
    ofPod: NAMESPACES.flatMap((ns) =>
      ['p1', 'p2'].flatMap((name) => ['sa1', 'sa2'].map((sa) => store.workloadOfPod(ns, name, sa))),
    ),
    byAddress: NETWORKS.flatMap((network) =>
      ADDRESSES.map((address) => store.workloadByAddress(network, address)),
    ),
    byVip: NETWORKS.flatMap((network) =>
      ADDRESSES.flatMap((address) =>
        [...NAMESPACES, 'else'].map((ns) => store.serviceByVip(network, address, ns)),
      ),
    ),
    endpoints,
    policies: sorted(workloads, (one) => [one.uid]).map((one) => store.policiesOf(one)),
    workloads: uidsOf(workloads),
  };
}

function uidsOf(workloads: readonly Workload[]): string[] {
  return workloads.map((one) => one.uid).sort();
}

describe('store', () => {
  test('answers like its naive twin after any updates, and its snapshot makes another like it', () => {
    fc.assert(
      fc.property(fc.array(update, { maxLength: 12 }), (updates) => {
        const store = createStore({ preferredServiceNamespace: 'preferred' });
        const twin = new NaiveStore();
        for (const one of updates) {
          store.apply(one);
          twin.apply(one);
          expect(answersOf(store)).toEqual(answersOf(twin));
        }
        const copy = createStore({ preferredServiceNamespace: 'preferred' });
        copy.apply(store.snapshot());
        expect(answersOf(copy)).toEqual(answersOf(twin));
      }),
      { seed: 20261122, numRuns: 60 },
    );
  });

  test('an update in parts is not seen before its commit, and then is as if it had come whole', () => {
    fc.assert(
      fc.property(
        fc.array(update, { maxLength: 6 }),
        fc.integer({ min: 1, max: 4 }),
        (updates, maxObjects) => {
          const store = createStore({ preferredServiceNamespace: 'preferred' });
          const whole = createStore({ preferredServiceNamespace: 'preferred' });
          for (const one of updates) {
            const before = answersOf(store);
            const staged = store.stage();
            for (const part of partsOf(one, maxObjects)) {
              expect(sizeOf(part)).toBeLessThanOrEqual(maxObjects);
              staged.add(part);
            }
            expect(answersOf(store)).toEqual(before);
            staged.commit();
            whole.apply(one);
            expect(answersOf(store)).toEqual(answersOf(whole));
          }
        },
      ),
      { seed: 20261122, numRuns: 40 },
    );
  });

  test('a list of endpoints that was given out never changes', () => {
    const service = { namespace: 'shop', hostname: 'cart' };
    const one = (uid: string) => workloadWith({ uid, services: new Map([['shop/cart', []]]) });
    const store = createStore();
    store.apply(updateWith({ workloads: [one('a')] }));
    const before = store.endpointsOf(service);
    expect(store.endpointsOf(service)).toBe(before);
    store.apply(updateWith({ workloads: [one('b')] }));
    expect(uidsOf(before)).toEqual(['a']);
    expect(uidsOf(store.endpointsOf(service))).toEqual(['a', 'b']);
  });
});
