import { describe, expect, test } from '@jest/globals';
import { serviceWith } from '../../mesh/store/fixtures.js';
import type { StoreUpdate } from '../../mesh/store/index.js';
import { cartPorts, client, request, routerOf, sent, service, workload } from '../../test/support/routing.js';
import type { Route } from './types.js';

function decide(update: Partial<StoreUpdate>, address: string, port: number, random = 0) {
  return routerOf(update, { random: () => random }).route(request(address, port));
}

describe('route', () => {
  test('an address that nobody has goes there unchanged', () => {
    expect(decide({}, '192.0.2.1', 443)).toMatchObject({
      kind: 'passthrough',
      to: { address: '192.0.2.1', port: 443 },
    });
  });

  test('a workload with HBONE gets a tunnel to its own address and must show its own identity', () => {
    expect(decide({ workloads: [workload('cart')] }, '10.0.0.1', 9999)).toMatchObject({
      kind: 'hbone',
      via: 'workload',
      nextHop: { address: '10.0.0.1', port: 15008 },
      target: { address: '10.0.0.1', port: 9999 },
      expectedIdentities: ['spiffe://cluster.local/ns/shop/sa/cart'],
    });
  });

  test('what the controller named but we could not read is refused, never sent in clear', () => {
    const defect = 'tunnel_protocol: value 2 is not supported';
    const cart = workload('cart', { tunnelProtocol: 'none', defect, services: cartPorts });
    expect(decide({ workloads: [cart] }, '10.0.0.1', 9999)).toMatchObject({ kind: 'refused' });
    expect(decide({ workloads: [cart, workload('b')] }, '10.0.0.1', 9999)).toMatchObject({ kind: 'hbone' });
    expect(decide({ services: [service({ defect })] }, '10.96.0.1', 80)).toMatchObject({ kind: 'refused' });
    expect(decide({ workloads: [cart], services: [service()] }, '10.96.0.1', 80)).toMatchObject({
      kind: 'refused',
      reason: expect.stringContaining('no usable endpoint'),
    });
  });

  test('a workload without HBONE gets plain TCP', () => {
    expect(
      decide({ workloads: [workload('cart', { tunnelProtocol: 'none' })] }, '10.0.0.1', 1),
    ).toMatchObject({
      kind: 'direct',
      to: { address: '10.0.0.1', port: 1 },
    });
  });

  test('a service VIP becomes an endpoint and its target port; the service names are accepted too', () => {
    const cart = workload('cart', { services: cartPorts });
    const named = service({ subjectAltNames: ['spiffe://other.td/ns/a/sa/b', 'not-spiffe'] });
    expect(decide({ workloads: [cart], services: [named] }, '10.96.0.1', 80)).toMatchObject({
      kind: 'hbone',
      target: { address: '10.0.0.1', port: 8080 },
      expectedIdentities: ['spiffe://cluster.local/ns/shop/sa/cart', 'spiffe://other.td/ns/a/sa/b'],
    });
  });

  test('a named port (0) is looked up at the endpoint', () => {
    const cart = workload('cart', {
      services: new Map([['shop/cart.shop.svc.cluster.local', [{ servicePort: 80, targetPort: 7070 }]]]),
    });
    const named = service({ ports: [{ servicePort: 80, targetPort: 0 }] });
    expect(decide({ workloads: [cart], services: [named] }, '10.96.0.1', 80)).toMatchObject({
      target: { address: '10.0.0.1', port: 7070 },
    });
  });

  test('a port that the service does not have, and a service without endpoints, are refused', () => {
    const cart = workload('cart', { services: cartPorts });
    expect(decide({ workloads: [cart], services: [service()] }, '10.96.0.1', 81)).toMatchObject({
      kind: 'refused',
      reason: 'service shop/cart.shop.svc.cluster.local has no port 81',
    });
    expect(decide({ services: [service()] }, '10.96.0.1', 80)).toMatchObject({ kind: 'refused' });
  });

  test('unhealthy endpoints and those of capacity 0 get nothing, unless the service takes all', () => {
    const sick = workload('cart', { services: cartPorts, healthy: false });
    const idle = workload('cart2', { addresses: ['10.0.0.2'], services: cartPorts, capacity: 0 });
    expect(decide({ workloads: [sick, idle], services: [service()] }, '10.96.0.1', 80)).toMatchObject({
      kind: 'refused',
    });
    const all = service({
      loadBalancing: { routingPreference: [], mode: 'unspecified', healthPolicy: 'allow-all' },
    });
    expect(decide({ workloads: [sick, idle], services: [all] }, '10.96.0.1', 80)).toMatchObject({
      target: { address: '10.0.0.1' },
    });
  });

  test('capacity weighs the choice', () => {
    const small = workload('a', { services: cartPorts, capacity: 1 });
    const large = workload('b', { addresses: ['10.0.0.2'], services: cartPorts, capacity: 3 });
    const picks = [0, 0.24, 0.26, 0.99].map((random) =>
      decide({ workloads: [small, large], services: [service()] }, '10.96.0.1', 80, random),
    );
    expect(picks.map((pick) => pick.kind === 'hbone' && pick.workload.name)).toEqual(['a', 'a', 'b', 'b']);
  });

  test('STRICT keeps to the own zone, FAILOVER takes the nearest', () => {
    const far = workload('far', { services: cartPorts, locality: { region: 'r2', zone: 'z9', subzone: '' } });
    const strict = service({
      loadBalancing: { routingPreference: ['region', 'zone'], mode: 'strict', healthPolicy: 'only-healthy' },
    });
    expect(decide({ workloads: [far], services: [strict] }, '10.96.0.1', 80)).toMatchObject({
      kind: 'refused',
    });
    const failover = service({
      loadBalancing: {
        routingPreference: ['region', 'zone'],
        mode: 'failover',
        healthPolicy: 'only-healthy',
      },
    });
    expect(decide({ workloads: [far], services: [failover] }, '10.96.0.1', 80)).toMatchObject({
      workload: { name: 'far' },
    });
    const near = workload('near', { addresses: ['10.0.0.2'], services: cartPorts });
    for (const random of [0, 0.99])
      expect(decide({ workloads: [far, near], services: [failover] }, '10.96.0.1', 80, random)).toMatchObject(
        {
          workload: { name: 'near' },
        },
      );
  });

  test('a service with a waypoint goes there with the original destination; an unknown waypoint is refused, never bypassed', () => {
    const waypoint = {
      destination: { kind: 'address' as const, network: '', address: '10.0.0.7' },
      hboneMtlsPort: 15008,
    };
    const cart = workload('cart', { services: cartPorts });
    const guarded = service({ waypoint });
    expect(decide({ workloads: [cart], services: [guarded] }, '10.96.0.1', 80)).toMatchObject({
      kind: 'refused',
    });
    const proxy = workload('proxy', { addresses: ['10.0.0.7'] });
    expect(decide({ workloads: [cart, proxy], services: [guarded] }, '10.96.0.1', 80)).toMatchObject({
      kind: 'hbone',
      via: 'waypoint',
      nextHop: { address: '10.0.0.7', port: 15008 },
      target: { address: '10.96.0.1', port: 80 },
      expectedIdentities: ['spiffe://cluster.local/ns/shop/sa/proxy'],
    });
  });
});

describe('unknown destinations', () => {
  test('REGISTRY_ONLY refuses them, and only them', () => {
    const source = { ...client, outboundPolicy: 'registry-only' as const };
    const router = routerOf({
      workloads: [workload('cart', { services: cartPorts })],
      services: [service()],
    });
    expect(router.route(request('192.0.2.1', 443, { source }))).toMatchObject({
      kind: 'refused',
      reason: expect.stringContaining('REGISTRY_ONLY'),
    });
    expect(sent(router.route(request('10.96.0.1', 80, { source })))).toBe('cart');
    expect(sent(router.route(request('10.0.0.1', 9, { source })))).toBe('cart');
  });

  test('a service of mode PASSTHROUGH gives the original destination, but nothing in clear to who speaks HBONE', () => {
    const loadBalancing = {
      routingPreference: [],
      mode: 'passthrough' as const,
      healthPolicy: 'only-healthy' as const,
    };
    const range = service({ vips: [{ network: '', address: '10.0.0.0', prefixLength: 24 }], loadBalancing });
    const router = routerOf({ workloads: [workload('cart')], services: [range] });
    expect(router.route(request('10.0.0.77', 5))).toMatchObject({
      kind: 'passthrough',
      to: { address: '10.0.0.77', port: 5 },
    });
    expect(router.route(request('10.0.0.1', 5))).toMatchObject({
      kind: 'hbone',
      target: { address: '10.0.0.1', port: 5 },
    });
  });
});

describe('endpoints', () => {
  test("the address that was dialled, where it is one of the endpoint's own", () => {
    const range = service({ vips: [{ network: '', address: '10.0.0.0', prefixLength: 24 }] });
    const cart = workload('cart', { addresses: ['10.0.0.1', '10.0.0.2'], services: cartPorts });
    const router = routerOf({ workloads: [cart], services: [range] });
    for (const [dialled, reached] of [
      ['10.0.0.2', '10.0.0.2'],
      ['10.0.0.1', '10.0.0.1'],
      ['10.0.0.9', '10.0.0.1'],
    ] as const)
      expect(router.route(request(dialled, 80))).toMatchObject({ target: { address: reached, port: 8080 } });
  });

  test("one on another network is not dialled by an address that may be somebody else's here", () => {
    const far = workload('far', { network: 'far', services: cartPorts });
    expect(decide({ workloads: [far], services: [service()] }, '10.96.0.1', 80)).toMatchObject({
      kind: 'refused',
    });
  });

  test('one that keeps failing is left out; if all are, any is used again', () => {
    let nowMs = 0;
    const workloads = ['a', 'b'].map((name, index) =>
      workload(name, { addresses: [`10.0.0.${index + 1}`], services: cartPorts }),
    );
    const router = routerOf({ workloads, services: [service()] }, { nowMs: () => nowMs });
    const next = (tried: readonly string[] = []) => router.route(request('10.96.0.1', 80, { tried }));
    const endpointOf = (route: Route) => (route.kind === 'hbone' ? route.endpoint! : null)!;
    const a = endpointOf(next());
    expect(sent(next([a.key]))).toBe('b');
    const b = endpointOf(next([a.key]));
    router.failed(a);
    expect(sent(next())).toBe('a');
    router.failed(a);
    expect(sent(next())).toBe('b');
    expect(next([b.key])).toMatchObject({ workload: { name: 'a' } });
    expect(next([a.key, b.key])).toMatchObject({ kind: 'refused' });
    nowMs = 1_001;
    expect(sent(next())).toBe('a');
  });

  test('a hostname waits for its addresses, one of them is used, of the family asked for; those tried are not', () => {
    let addresses: readonly string[] | null = null;
    const db = workload('db', {
      addresses: [],
      hostname: 'db.example.org',
      tunnelProtocol: 'none',
      services: cartPorts,
    });
    const router = routerOf(
      { workloads: [db], services: [service()] },
      { hostnames: { addressesOf: () => addresses } },
    );
    const next = (tried: readonly string[] = []) => router.route(request('10.96.0.1', 80, { tried }));
    expect(next()).toMatchObject({ kind: 'unresolved', hostname: 'db.example.org' });
    addresses = ['127.0.0.1', '2001:db8::1', '192.0.2.1'];
    const first = next();
    expect(first).toMatchObject({ kind: 'direct', to: { address: '192.0.2.1', port: 8080 } });
    const second = next([first.kind === 'direct' ? first.endpoint!.key : '']);
    expect(second).toMatchObject({ kind: 'direct', to: { address: '2001:db8::1', port: 8080 } });
    addresses = [];
    expect(next()).toMatchObject({
      kind: 'refused',
      reason: expect.stringContaining('no address is known of db.example.org'),
    });
  });

  test("the next of a waypoint's endpoints, and what its service says for itself", () => {
    const waypoint = {
      destination: {
        kind: 'hostname' as const,
        hostname: { namespace: 'shop', hostname: 'waypoint.shop.svc.cluster.local' },
      },
      hboneMtlsPort: 15008,
    };
    const key = 'shop/waypoint.shop.svc.cluster.local';
    const proxies = ['p1', 'p2'].map((name, index) =>
      workload(name, { addresses: [`10.0.1.${index + 1}`], services: new Map([[key, []]]) }),
    );
    const behind = serviceWith({
      name: 'waypoint',
      namespace: 'shop',
      hostname: 'waypoint.shop.svc.cluster.local',
      subjectAltNames: ['spiffe://cluster.local/ns/shop/sa/any-waypoint'],
    });
    const update = { workloads: proxies, services: [service({ waypoint }), behind] };
    const router = routerOf(update);
    const first = router.route(request('10.96.0.1', 80));
    expect(first).toMatchObject({
      kind: 'hbone',
      via: 'waypoint',
      nextHop: { address: '10.0.1.1', port: 15008 },
      target: { address: '10.96.0.1', port: 80 },
      expectedIdentities: [
        'spiffe://cluster.local/ns/shop/sa/p1',
        'spiffe://cluster.local/ns/shop/sa/any-waypoint',
      ],
      service: { name: 'cart' },
    });
    const tried = [first.kind === 'hbone' ? first.endpoint!.key : ''];
    expect(router.route(request('10.96.0.1', 80, { tried }))).toMatchObject({
      nextHop: { address: '10.0.1.2' },
    });
    const unreadable = { ...update, services: [service({ waypoint }), { ...behind, defect: 'x' }] };
    expect(decide(unreadable, '10.96.0.1', 80)).toMatchObject({ kind: 'refused' });
  });
});
