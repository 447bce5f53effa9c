import { describe, expect, test } from '@jest/globals';
import type { Service, StoreUpdate } from '../../mesh/store/index.js';
import { cartPorts, request, routerOf, service, workload } from '../../test/support/routing.js';

const db = workload('db', {
  uid: 'Kubernetes/networking.istio.io/ServiceEntry/shop/db',
  addresses: [],
  hostname: 'db.example.org',
  tunnelProtocol: 'none',
  services: cartPorts,
});

function resolvedTo(address: string, update: Partial<StoreUpdate> = {}, tried: readonly string[] = []) {
  const { workloads = [], services = [] } = update;
  const router = routerOf(
    { workloads: [db, ...workloads], services: [service(), ...services] },
    { hostnames: { addressesOf: () => [address] } },
  );
  return router.route(request('10.96.0.1', 80, { tried }));
}

describe('an endpoint without HBONE', () => {
  test('whose name resolves to a pod of the mesh is that pod, by HBONE and with its own identity', () => {
    const pod = workload('pod', { addresses: ['10.0.0.5'] });
    const route = resolvedTo('10.0.0.5', { workloads: [pod] });
    expect(route).toMatchObject({
      kind: 'hbone',
      nextHop: { address: '10.0.0.5', port: 15008 },
      target: { address: '10.0.0.5', port: 8080 },
      expectedIdentities: ['spiffe://cluster.local/ns/shop/sa/pod'],
      workload: { name: 'pod' },
      service: { name: 'cart' },
    });
    const tried = [route.kind === 'hbone' ? route.endpoint!.key : ''];
    expect(resolvedTo('10.0.0.5', { workloads: [pod] }, tried)).toMatchObject({ kind: 'refused' });
    const unreadable = { ...pod, defect: 'x' };
    expect(resolvedTo('10.0.0.5', { workloads: [unreadable] })).toMatchObject({ kind: 'refused' });
  });

  test('that is listed with the address of a pod of the mesh is that pod, through its waypoint if it has one', () => {
    const listed = { ...db, addresses: ['10.0.0.5'], hostname: '' };
    const pod = workload('pod', { addresses: ['10.0.0.5'] });
    const proxy = workload('proxy', { addresses: ['10.0.0.7'] });
    const destination = { kind: 'address' as const, network: '', address: '10.0.0.7' };
    const waypoint = { destination, hboneMtlsPort: 15008 };
    const routeTo = (workloads: StoreUpdate['workloads']) =>
      routerOf({ workloads, services: [service()] }).route(request('10.96.0.1', 80));
    expect(routeTo([listed])).toMatchObject({ kind: 'direct', to: { address: '10.0.0.5', port: 8080 } });
    expect(routeTo([listed, pod])).toMatchObject({ kind: 'hbone', workload: { name: 'pod' } });
    expect(routeTo([listed, { ...pod, waypoint }])).toMatchObject({ kind: 'refused' });
    expect(routeTo([listed, proxy, { ...pod, waypoint }])).toMatchObject({
      kind: 'hbone',
      via: 'waypoint',
      nextHop: { address: '10.0.0.7' },
      target: { address: '10.0.0.5', port: 8080 },
    });
  });

  test("whose name resolves to the VIP of a service of the mesh is refused; of others' it is theirs", () => {
    const hostname = 'web.shop.svc.cluster.local';
    const vips = [{ network: '', address: '10.96.0.2', prefixLength: null }];
    const web: Service = service({ name: 'web', hostname, vips });
    const ports = new Map([[`shop/${hostname}`, [{ servicePort: 80, targetPort: 80 }]]]);
    const pod = workload('pod', { addresses: ['10.0.0.5'], services: ports });
    const routeTo = (update: Partial<StoreUpdate>) => resolvedTo('10.96.0.2', update).kind;
    expect(routeTo({ services: [web], workloads: [pod] })).toBe('refused');
    expect(routeTo({ services: [{ ...web, defect: 'x' }] })).toBe('refused');
    expect(routeTo({ services: [web], workloads: [{ ...pod, tunnelProtocol: 'none' }] })).toBe('direct');
  });

  test("never means the client's own machine", () => {
    for (const address of ['127.0.0.1', '::1', '0.0.0.0', '::'])
      expect([address, resolvedTo(address).kind]).toEqual([address, 'refused']);
    const listed = { ...db, addresses: ['127.0.0.1'], hostname: '' };
    const router = routerOf({ workloads: [listed], services: [service()] });
    expect(router.route(request('10.96.0.1', 80))).toMatchObject({
      kind: 'refused',
      reason: expect.stringContaining('the client itself'),
    });
  });
});

describe('another network', () => {
  const names = ['spiffe://cluster.local/ns/shop/sa/cart'];
  const remote = (name: string, gateway: string) =>
    workload(name, {
      network: 'east',
      addresses: ['10.0.0.1'],
      services: cartPorts,
      networkGateway: {
        destination: { kind: 'address', network: 'east', address: gateway },
        hboneMtlsPort: 15008,
      },
    });
  const gateway = (name: string, address: string) =>
    workload(name, { network: 'east', addresses: [address] });

  test('goes on through another gateway where there is one, else through the same', () => {
    const gateways = [gateway('g1', '203.0.113.1'), gateway('g2', '203.0.113.2')];
    const carts = ['a', 'b', 'c'].map((name) => remote(name, '203.0.113.1'));
    const workloads = [...carts, remote('d', '203.0.113.2'), ...gateways];
    const router = routerOf({ workloads, services: [service({ subjectAltNames: names })] });
    const next = (tried: readonly string[] = []) => {
      const route = router.route(request('10.96.0.1', 80, { tried }));
      if (route.kind !== 'hbone') throw new Error(`it is ${route.kind}`);
      return route;
    };
    const first = next();
    expect(first).toMatchObject({
      nextHop: { address: '203.0.113.1' },
      expectedIdentities: names,
      gateway: { expectedIdentities: ['spiffe://cluster.local/ns/shop/sa/g1'] },
    });
    const tried = [first.endpoint!.key, first.gateway!.key];
    const second = next(tried);
    expect(second.nextHop.address).toBe('203.0.113.2');
    tried.push(second.endpoint!.key, second.gateway!.key);
    const third = next(tried);
    expect(third.nextHop.address).toBe('203.0.113.1');
    expect(third.endpoint!.key).not.toBe(first.endpoint!.key);
  });

  test('a gateway that is a service has all its pods tried', () => {
    const key = 'shop/gateway.shop.svc.cluster.local';
    const hostname = { namespace: 'shop', hostname: 'gateway.shop.svc.cluster.local' };
    const networkGateway = { destination: { kind: 'hostname' as const, hostname }, hboneMtlsPort: 15008 };
    const workloads = [
      ...['a', 'b'].map((name) => ({ ...remote(name, ''), networkGateway })),
      ...['203.0.113.1', '203.0.113.2'].map((address) => ({
        ...gateway(`g-${address}`, address),
        services: new Map([[key, []]]),
      })),
    ];
    const services = [
      service({ subjectAltNames: names }),
      service({ name: 'gateway', hostname: hostname.hostname, vips: [] }),
    ];
    const router = routerOf({ workloads, services });
    const hopOf = (tried: readonly string[]) => {
      const route = router.route(request('10.96.0.1', 80, { tried }));
      return route.kind === 'hbone' ? route : null;
    };
    const first = hopOf([])!;
    const second = hopOf([first.endpoint!.key, first.gateway!.key])!;
    expect([first.nextHop.address, second.nextHop.address].sort()).toEqual(['203.0.113.1', '203.0.113.2']);
  });
});
