import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isIpv6 } from '../../mesh/common/address.js';
import { serviceWith, updateWith, workloadWith } from '../../mesh/store/fixtures.js';
import { createStore, type Service, type TrafficPolicy, type Workload } from '../../mesh/store/index.js';
import { EndpointCache } from './endpoint-cache.js';
import { Router } from './router.js';
import { WorkloadTexts } from './workload-texts.js';

const KEY = 'shop/cart';
const pick = <T>(...values: readonly T[]) => fc.constantFrom(...values);
const locality = fc.record({ region: pick('r1', 'r2'), zone: pick('z1', 'z2'), subzone: pick('', 's1') });
const ports = fc.subarray([
  { servicePort: 80, targetPort: 8080 },
  { servicePort: 81, targetPort: 0 },
]);
const place = { locality, node: pick('n1', 'n2'), clusterId: pick('c1', 'c2'), network: pick('', 'far') };
const workloadFields = fc.record({
  ...place,
  addresses: fc.subarray(['10.0.0.1', 'fd00::1', '10.0.0.2']),
  hostname: pick('', 'db.example.org'),
  healthy: fc.boolean(),
  capacity: fc.integer({ min: 0, max: 3 }),
  tunnelProtocol: pick('hbone' as const, 'none' as const),
  own: ports,
});
const scopes = fc.subarray(['network', 'region', 'zone', 'subzone', 'node', 'cluster'] as const);
const serviceFields = fc.record({
  ports,
  ipFamilies: pick('automatic', 'ipv4', 'ipv6', 'dual') as fc.Arbitrary<Service['ipFamilies']>,
  loadBalancing: fc.option(
    fc.record({
      routingPreference: scopes,
      mode: pick('unspecified', 'strict', 'failover') as fc.Arbitrary<
        NonNullable<Service['loadBalancing']>['mode']
      >,
      healthPolicy: pick('only-healthy' as const, 'allow-all' as const),
    }),
  ),
  trafficPolicy: fc.option(
    fc.record({
      loadBalancer: pick('random' as const, 'least-connections' as const, 'consistent-source' as const),
      connectTimeoutMs: fc.constant(0),
      maxConnectionAgeMs: fc.constant(0),
      outlierDetection: fc.constant(null),
    }),
    { nil: undefined },
  ),
});

interface Mesh {
  readonly source: Workload;
  readonly service: Service;
  readonly workloads: readonly Workload[];
}

const mesh: fc.Arbitrary<Mesh> = fc
  .record({ source: fc.record(place), service: serviceFields, workloads: fc.array(workloadFields) })
  .map(({ source, service, workloads }) => ({
    source: workloadWith({ uid: 'client', namespace: 'shop', ...source }),
    service: madeService(service),
    workloads: workloads.map(({ own, ...fields }, index) =>
      workloadWith({ uid: `w${index}`, ...fields, services: new Map([[KEY, own]]) }),
    ),
  }));

function madeService({
  trafficPolicy,
  ...fields
}: Omit<Partial<Service>, 'trafficPolicy'> & {
  readonly trafficPolicy: TrafficPolicy | undefined;
}): Service {
  const vips = [{ network: '', address: '10.96.0.1', prefixLength: null }];
  const made = serviceWith({ namespace: 'shop', hostname: 'cart', vips, ...fields });
  return trafficPolicy === undefined ? made : { ...made, trafficPolicy };
}

/** The rules of sheet 6 by going through all, in its words. Uids with target port. */
function naiveEndpoints({ source, service, workloads }: Mesh, port: number, wantsIpv6: boolean): string[] {
  const targetOf = (workload: Workload) =>
    [...(workload.services.get(KEY) ?? []), ...service.ports].find(
      (one) => one.servicePort === port && one.targetPort !== 0,
    )?.targetPort;
  const addressOf = ({ addresses }: Workload) => {
    const family = { ipv4: false, ipv6: true }[service.ipFamilies as string];
    const allowed = addresses.filter((address) => family === undefined || isIpv6(address) === family);
    return allowed.find((address) => isIpv6(address) === wantsIpv6) ?? allowed[0];
  };
  const usable = workloads.filter(
    (workload) =>
      (workload.healthy || service.loadBalancing?.healthPolicy === 'allow-all') &&
      workload.capacity > 0 &&
      workload.network === source.network &&
      targetOf(workload) !== undefined &&
      (addressOf(workload) !== undefined || (workload.addresses.length === 0 && workload.hostname !== '')),
  );
  const { mode, routingPreference = [] } = service.loadBalancing ?? {};
  const parts = (workload: Workload) => {
    const { region, zone, subzone } = workload.locality;
    return {
      region,
      zone: `${region} ${zone}`,
      subzone: `${region} ${zone} ${subzone}`,
      node: workload.node,
      cluster: workload.clusterId,
      network: workload.network,
    };
  };
  const matches = (workload: Workload) =>
    routingPreference.map((scope) => parts(workload)[scope] === parts(source)[scope]);
  const leading = (workload: Workload) => [...matches(workload), false].indexOf(false);
  const best = Math.max(...usable.map(leading));
  return usable
    .filter((workload) =>
      mode === 'strict'
        ? matches(workload).every(Boolean)
        : mode === 'failover'
          ? leading(workload) === best
          : true,
    )
    .map((workload) => `${workload.uid} ${addressOf(workload) ?? workload.hostname} ${targetOf(workload)}`)
    .sort();
}

const seed = 20261122;

describe('endpoints of a service', () => {
  test('are those of its naive twin, also after changes', () => {
    fc.assert(
      fc.property(fc.array(mesh, { minLength: 1, maxLength: 4 }), (states) => {
        const store = createStore();
        const cache = new EndpointCache({ store });
        for (const state of states) {
          const { service, workloads } = state;
          const gone = store.snapshot().workloads.map(({ uid }) => uid);
          store.apply(updateWith({ removed: gone, workloads, services: [service] }));
          for (const port of [80, 81])
            for (const wantsIpv6 of [false, true]) {
              const set = cache.ofService(service, state.source, port, wantsIpv6);
              const made = set.endpoints.map(
                (one) => `${one.workload.uid} ${one.to?.address ?? one.workload.hostname} ${one.port}`,
              );
              expect(made.sort()).toEqual(naiveEndpoints(state, port, wantsIpv6));
              expect(cache.ofService(service, state.source, port, wantsIpv6)).toBe(set);
            }
        }
      }),
      { seed, numRuns: 300 },
    );
  });

  test('whatever the balancer, one of them is picked that was not tried, and none only when all were', () => {
    fc.assert(
      fc.property(
        mesh,
        fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
        (state, randoms) => {
          const store = createStore();
          store.apply(updateWith({ workloads: state.workloads, services: [state.service] }));
          const router = new Router(
            {
              network: '',
              outlierDetection: { consecutiveConnectFailures: 1, baseEjectionMs: 1, maxEjectionPercent: 50 },
            },
            {
              store,
              texts: new WorkloadTexts(),
              hostnames: { addressesOf: () => ['192.0.2.1'] },
              nowMs: () => 0,
              random: () => randoms.next().value,
            },
          );
          const destination = { address: '10.96.0.1', port: 80 };
          const left = new Set(naiveEndpoints(state, 80, false).map((text) => text.split(' ')[0]!));
          if (!state.service.ports.some(({ servicePort }) => servicePort === 80)) left.clear();
          // A name's only address is not of the service's family.
          if (state.service.ipFamilies === 'ipv6')
            for (const { uid, addresses } of state.workloads) if (addresses.length === 0) left.delete(uid);
          const tried: string[] = [];
          for (;;) {
            const route = router.route({ source: state.source, destination, client: '10.0.0.9', tried });
            if (route.kind !== 'hbone' && route.kind !== 'direct') {
              expect([route.kind, [...left]]).toEqual(['refused', []]);
              return;
            }
            const endpoint = route.endpoint!;
            expect(left.delete(endpoint.workload.uid)).toBe(true);
            tried.push(endpoint.key);
            router.failed(endpoint);
          }
        },
      ),
      { seed, numRuns: 300 },
    );
  });
});
