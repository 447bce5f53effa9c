import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { istio } from '../proto/index.js';
import { decodeAddress } from './decode-address.js';
import { decodeAuthorization } from './decode-authorization.js';

type WireWorkload = istio.workload.Workload.$Properties;
type WireService = istio.workload.Service.$Properties;

function decodeWorkload(fields: object, name = 'uid-1') {
  const workload: WireWorkload = { uid: 'uid-1', namespace: 'shop', ...fields };
  return decodeAddress(name, istio.workload.Address.encode({ workload }).finish());
}

function decodeService(fields: object, name = 'shop/web.local') {
  const service: WireService = { namespace: 'shop', hostname: 'web.local', ...fields };
  return decodeAddress(name, istio.workload.Address.encode({ service }).finish());
}

function decodePolicy(fields: object) {
  return decodeAuthorization('shop/p', istio.security.Authorization.encode(fields).finish());
}

const v4 = Buffer.from([10, 0, 0, 1]);
const mapped = Buffer.from('00000000000000000000ffff0a000001', 'hex');
const v6 = Buffer.from('20010db8000000000000000000000001', 'hex');

describe('workloads', () => {
  test('every field', () => {
    const gateway = { address: { network: 'n2', address: v6 }, hboneMtlsPort: 15008 };
    const decoded = decodeWorkload({
      name: 'web-1',
      addresses: [v4, v6, mapped],
      network: 'n1',
      tunnelProtocol: 1,
      trustDomain: 'td',
      serviceAccount: 'sa',
      waypoint: { hostname: { namespace: 'shop', hostname: 'wp.local' }, hboneMtlsPort: 15008 },
      node: 'node-1',
      canonicalName: 'web',
      canonicalRevision: 'v1',
      workloadType: 3,
      workloadName: 'web',
      nativeTunnel: true,
      authorizationPolicies: ['shop/p'],
      status: 1,
      clusterId: 'c1',
      networkGateway: gateway,
      hostname: 'db.example.com',
      services: { 'shop/web.local': { ports: [{ servicePort: 80, targetPort: 8080 }] } },
      applicationTunnel: { protocol: 1, port: 9000 },
      locality: { region: 'r', zone: 'z', subzone: 's' },
      networkMode: 1,
      capacity: { value: 0 },
    });
    expect(decoded).toEqual({
      kind: 'workload',
      workload: {
        uid: 'uid-1',
        name: 'web-1',
        namespace: 'shop',
        addresses: ['10.0.0.1', '2001:db8::1', '10.0.0.1'],
        hostname: 'db.example.com',
        network: 'n1',
        tunnelProtocol: 'hbone',
        trustDomain: 'td',
        serviceAccount: 'sa',
        node: 'node-1',
        canonicalName: 'web',
        canonicalRevision: 'v1',
        workloadType: 'job',
        workloadName: 'web',
        nativeTunnel: true,
        authorizationPolicies: ['shop/p'],
        healthy: false,
        clusterId: 'c1',
        waypoint: {
          destination: { kind: 'hostname', hostname: { namespace: 'shop', hostname: 'wp.local' } },
          hboneMtlsPort: 15008,
        },
        networkGateway: {
          destination: { kind: 'address', network: 'n2', address: '2001:db8::1' },
          hboneMtlsPort: 15008,
        },
        services: new Map([['shop/web.local', [{ servicePort: 80, targetPort: 8080 }]]]),
        applicationTunnel: { protocol: 'proxy', port: 9000 },
        locality: { region: 'r', zone: 'z', subzone: 's' },
        hostNetwork: true,
        capacity: 0,
      },
    });
  });

  test('wire defaults', () => {
    expect(decodeWorkload({})).toMatchObject({
      kind: 'workload',
      workload: {
        trustDomain: 'cluster.local',
        serviceAccount: 'default',
        clusterId: 'Kubernetes',
        tunnelProtocol: 'none',
        workloadType: 'deployment',
        healthy: true,
        capacity: 1,
        waypoint: null,
        hostNetwork: false,
      },
    });
  });

  test.each([
    [{ uid: 'other' }, 'uid: is "other", which is not the resource name'],
    [{ addresses: [Buffer.alloc(5)] }, 'addresses[0]: an address has 4 or 16 bytes, not 5'],
    [{ tunnelProtocol: 2 }, 'tunnel_protocol: value 2 is not supported'],
    [{ tunnelProtocol: 9 }, 'tunnel_protocol: value 9 is not supported'],
    [{ trustDomain: 'a/b' }, 'trust_domain: "a/b" is no name'],
    [{ serviceAccount: 'a b' }, 'service_account: "a b" is no name'],
    [{ workloadType: 4 }, 'workload_type: value 4 is not supported'],
    [{ status: 2 }, 'status: value 2 is not supported'],
    [{ networkMode: 2 }, 'network_mode: value 2 is not supported'],
    [{ waypoint: { hboneMtlsPort: 15008 } }, 'waypoint: has no destination'],
    [{ networkGateway: { address: { address: v4 } } }, 'network_gateway.hbone_mtls_port: 0 is no port'],
    [
      { waypoint: { hostname: { namespace: 'a', hostname: '' }, hboneMtlsPort: 15008 } },
      'waypoint.hostname.hostname: is empty',
    ],
    [{ services: { nonsense: { ports: [] } } }, 'services["nonsense"]: key is not ns/hostname'],
    [
      { services: { 'a/b': { ports: [{ servicePort: 70_000 }] } } },
      'services["a/b"][0].service_port: 70000 is no port',
    ],
    [{ applicationTunnel: { protocol: 2 } }, 'application_tunnel.protocol: value 2 is not supported'],
  ])('%j is refused: %s', (fields, problem) => {
    const decoded = decodeWorkload(fields);
    expect(decoded).toMatchObject({ kind: 'rejected', problems: [problem] });
    expect(decoded).toMatchObject({ place: { workload: { uid: expect.any(String), defect: problem } } });
  });
});

describe('services', () => {
  test('every field', () => {
    const waypoint = { hostname: { namespace: 'shop', hostname: 'wp.local' }, hboneMtlsPort: 15008 };
    const decoded = decodeService({
      name: 'web',
      addresses: [
        { network: 'n1', address: v4 },
        { address: v6, length: 64 },
        { address: v4, length: 32 },
        { address: mapped, length: 120 },
      ],
      ports: [{ servicePort: 80, targetPort: 0 }],
      subjectAltNames: ['spiffe://td/ns/a/sa/b'],
      waypoint,
      weightedWaypoints: [{ destination: waypoint, weight: 3 }],
      loadBalancing: { routingPreference: [6, 1, 2], mode: 2, healthPolicy: 1 },
      ipFamilies: 3,
      canonical: true,
      visibility: 1,
    });
    const gateway = {
      destination: { kind: 'hostname', hostname: { namespace: 'shop', hostname: 'wp.local' } },
      hboneMtlsPort: 15008,
    };
    expect(decoded).toEqual({
      kind: 'service',
      service: {
        name: 'web',
        namespace: 'shop',
        hostname: 'web.local',
        vips: [
          { network: 'n1', address: '10.0.0.1', prefixLength: null },
          { network: '', address: '2001:db8::1', prefixLength: 64 },
          { network: '', address: '10.0.0.1', prefixLength: null },
          { network: '', address: '10.0.0.1', prefixLength: 24 },
        ],
        ports: [{ servicePort: 80, targetPort: 0 }],
        subjectAltNames: ['spiffe://td/ns/a/sa/b'],
        waypoint: gateway,
        weightedWaypoints: [{ destination: gateway, weight: 3 }],
        loadBalancing: {
          routingPreference: ['network', 'region', 'zone'],
          mode: 'failover',
          healthPolicy: 'allow-all',
        },
        ipFamilies: 'dual',
        canonical: true,
        visibility: 'namespace',
      },
    });
  });

  test.each([
    [{ hostname: 'x' }, 'hostname: "shop/x" is not the resource name'],
    [{ addresses: [{ address: v4, length: 33 }] }, 'addresses[0]: prefix length 33 does not fit 10.0.0.1'],
    [
      { addresses: [{ address: mapped, length: 95 }] },
      'addresses[0]: prefix length 95 does not fit 10.0.0.1',
    ],
    [{ ports: [{ servicePort: 0 }] }, 'ports[0].service_port: 0 is no port'],
    [
      { loadBalancing: { routingPreference: [0] } },
      'load_balancing.routing_preference[0]: value 0 is not supported',
    ],
    [{ loadBalancing: { mode: 4 } }, 'load_balancing.mode: value 4 is not supported'],
    [{ weightedWaypoints: [{ weight: 1 }] }, 'weighted_waypoints[0]: has no destination'],
    [{ visibility: 2 }, 'visibility: value 2 is not supported'],
  ])('%j is refused: %s', (fields, problem) => {
    expect(decodeService(fields)).toMatchObject({
      kind: 'rejected',
      problems: [problem],
      place: { service: { defect: problem } },
    });
  });

  test('neither workload nor service, and bytes that are neither', () => {
    expect(decodeAddress('x', new Uint8Array())).toEqual({
      kind: 'rejected',
      problems: ['type: is neither workload nor service'],
      place: null,
    });
    expect(decodeAddress('x', Buffer.from([0x0a, 0x7f]))).toMatchObject({ kind: 'rejected' });
  });
});

describe('policies', () => {
  test('every field', () => {
    const match = {
      namespaces: [{ exact: 'a' }],
      notNamespaces: [{ prefix: 'b' }],
      principals: [{ suffix: 'c' }],
      notPrincipals: [{ presence: {} }],
      sourceIps: [{ address: v4, length: 8 }],
      notSourceIps: [{ address: v6, length: 128 }],
      destinationIps: [{ address: mapped, length: 128 }],
      notDestinationIps: [{ address: v4, length: 0 }],
      destinationPorts: [80],
      notDestinationPorts: [443],
      serviceAccounts: [{ namespace: 'n', serviceAccount: 's' }],
      notServiceAccounts: [{ namespace: 'n', serviceAccount: 't' }],
    };
    const decoded = decodePolicy({
      name: 'p',
      namespace: 'shop',
      scope: 2,
      action: 1,
      dryRun: true,
      groups: [{ rules: [{ matches: [match, {}] }, {}] }, {}],
    });
    const nothing = Object.fromEntries(Object.keys(match).map((field) => [field, []]));
    expect(decoded).toEqual({
      problems: [],
      policy: {
        key: 'shop/p',
        namespace: 'shop',
        scope: 'workload-selector',
        action: 'deny',
        dryRun: true,
        defect: null,
        groups: [
          [
            [
              {
                namespaces: [{ kind: 'exact', value: 'a' }],
                notNamespaces: [{ kind: 'prefix', value: 'b' }],
                principals: [{ kind: 'suffix', value: 'c' }],
                notPrincipals: [{ kind: 'presence' }],
                sourceIps: [{ address: '10.0.0.1', prefixLength: 8 }],
                notSourceIps: [{ address: '2001:db8::1', prefixLength: 128 }],
                destinationIps: [{ address: '10.0.0.1', prefixLength: 32 }],
                notDestinationIps: [{ address: '10.0.0.1', prefixLength: 0 }],
                destinationPorts: [80],
                notDestinationPorts: [443],
                serviceAccounts: [{ namespace: 'n', serviceAccount: 's' }],
                notServiceAccounts: [{ namespace: 'n', serviceAccount: 't' }],
              },
              nothing,
            ],
            [],
          ],
          [],
        ],
      },
    });
  });

  const inMatch = (match: object) => ({ scope: 2, groups: [{ rules: [{ matches: [match] }] }] });
  const at = 'groups[0].rules[0].matches[0]';

  test.each([
    [{ scope: 3 }, 'scope: value 3 is not supported', 'global'],
    [{ action: 2, scope: 2 }, 'action: value 2 is not supported', 'workload-selector'],
    [{ scope: 1 }, 'namespace: is empty', 'namespace'],
    [inMatch({ principals: [{}] }), `${at}.principals[0]: matches nothing`, 'workload-selector'],
    [
      inMatch({ sourceIps: [{ address: Buffer.alloc(3) }] }),
      `${at}.source_ips[0]: an address has 4 or 16 bytes, not 3`,
      'workload-selector',
    ],
    [
      inMatch({ notDestinationPorts: [65_536] }),
      `${at}.not_destination_ports[0]: 65536 is no port`,
      'workload-selector',
    ],
    [
      inMatch({ serviceAccounts: [{ namespace: 'a' }] }),
      `${at}.service_accounts[0].serviceAccount: is empty`,
      'workload-selector',
    ],
    [inMatch({ extensions: [{ name: 'x' }] }), `${at}.extensions: are not supported`, 'workload-selector'],
    [{ scope: 2, extensions: [{ name: 'x' }] }, 'policy.extensions: are not supported', 'workload-selector'],
  ])('%j is refused, and denies in its scope', (fields, problem, scope) => {
    const { policy, problems } = decodePolicy(fields);
    expect(problems).toEqual([problem]);
    expect(policy).toMatchObject({ defect: problem, scope });
  });

  test('a condition that this version does not know is no condition that may be dropped', () => {
    const field99 = Buffer.from([0x9a, 0x06, 0x01, 0x78]);
    const match = Buffer.concat([istio.security.Match.encode({ destinationPorts: [80] }).finish(), field99]);
    const wrap = (inner: Uint8Array, tag: number) => Buffer.concat([Buffer.from([tag, inner.length]), inner]);
    const bytes = wrap(wrap(wrap(match, 0x12), 0x0a), 0x2a);
    expect(decodeAuthorization('a/p', bytes).problems).toEqual([
      `${at}: has a field that this version does not know`,
    ]);
    const sound = wrap(wrap(wrap(match.subarray(0, -4), 0x12), 0x0a), 0x2a);
    expect(decodeAuthorization('a/p', sound).policy.groups[0]?.[0]?.[0]?.destinationPorts).toEqual([80]);
  });

  test('bytes that cannot be read may have been meant for anybody', () => {
    const { policy, problems } = decodeAuthorization('shop/p', Buffer.from([0x2a, 0x7f]));
    expect(policy).toMatchObject({
      key: 'shop/p',
      scope: 'global',
      action: 'deny',
      dryRun: false,
      groups: [],
    });
    expect(problems).toHaveLength(1);
  });
});

test('any bytes at all are decoded or refused, never thrown', () => {
  const seeds = [
    istio.workload.Address.encode({
      workload: { uid: 'u', addresses: [v4], services: { 'a/b': {} } },
    }).finish(),
    istio.security.Authorization.encode({
      groups: [{ rules: [{ matches: [{ principals: [{ exact: 'x' }] }] }] }],
    }).finish(),
  ];
  const spoilt = fc
    .tuple(fc.constantFrom(...seeds), fc.nat(60), fc.uint8Array({ maxLength: 6 }))
    .map(([seed, at, bytes]) => Buffer.concat([seed.subarray(0, at), bytes, seed.subarray(at)]));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 80 }), spoilt), (bytes) => {
      decodeAddress('u', bytes);
      const { policy, problems } = decodeAuthorization('u', bytes);
      expect(policy.defect === null).toBe(problems.length === 0);
    }),
    { seed: 20261122, numRuns: 2_000 },
  );
});
