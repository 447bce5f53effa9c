import { type RouteRequest, Router, type RouterDeps } from '../../agent/routing/router.js';
import type { Route } from '../../agent/routing/types.js';
import { WorkloadTexts } from '../../agent/routing/workload-texts.js';
import { serviceWith, updateWith, workloadWith } from '../../mesh/store/fixtures.js';
import { createStore, type Service, type StoreUpdate, type Workload } from '../../mesh/store/index.js';

// What the tests of routes are made of: a service `cart`, its workloads, and a client.

const locality = { region: 'r1', zone: 'z1', subzone: '' };

export const workload = (name: string, fields: Partial<Workload> = {}): Workload =>
  workloadWith({
    uid: `Kubernetes//Pod/shop/${name}`,
    name,
    namespace: 'shop',
    addresses: ['10.0.0.1'],
    tunnelProtocol: 'hbone',
    serviceAccount: name,
    node: 'n1',
    locality,
    ...fields,
  });

export const service = (fields: Partial<Service> = {}): Service =>
  serviceWith({
    name: 'cart',
    namespace: 'shop',
    hostname: 'cart.shop.svc.cluster.local',
    vips: [{ network: '', address: '10.96.0.1', prefixLength: null }],
    ports: [{ servicePort: 80, targetPort: 8080 }],
    ...fields,
  });

export const cartPorts = new Map([
  ['shop/cart.shop.svc.cluster.local', [{ servicePort: 80, targetPort: 8080 }]],
]);
export const client = workload('client', { addresses: ['10.0.0.9'] });

const outlierDetection = { consecutiveConnectFailures: 2, baseEjectionMs: 1_000, maxEjectionPercent: 50 };

/** Of a store with just this; the first of several is drawn. */
export function routerOf(update: Partial<StoreUpdate>, deps: Partial<RouterDeps> = {}): Router {
  const store = createStore();
  store.apply(updateWith({ snapshot: true, ...update }));
  return new Router(
    { network: '', outlierDetection },
    {
      store,
      texts: new WorkloadTexts(),
      hostnames: { addressesOf: () => null },
      nowMs: () => 0,
      random: () => 0,
      ...deps,
    },
  );
}

export const request = (address: string, port: number, fields: Partial<RouteRequest> = {}): RouteRequest => ({
  source: client,
  destination: { address, port },
  client: '10.0.0.9',
  tried: [],
  ...fields,
});

export const sent = (route: Route): string =>
  route.kind === 'hbone' || route.kind === 'direct' ? route.workload.name : route.kind;
