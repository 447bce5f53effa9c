// Longer than 400 lines: every field of every message is written out twice, as value and as bytes.
import { describe, expect, test } from '@jest/globals';
import {
  ADDRESS_TYPE_URL,
  AggregatedDiscoveryService,
  encodeDeltaResponse,
  encodeResource,
  envoy,
  IstioCertificateService,
  istio,
} from './index.js';

// The oracle: bytes written by hand from the field numbers of hbone-and-wds.md, with no protobuf library.
type Value = string | number | Uint8Array | Field[];
type Field = readonly [number: number, value: Value];

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value % 0x80) | 0x80, ...varint(Math.floor(value / 0x80))];
}

function wire(fields: readonly Field[]): Buffer {
  return Buffer.concat(
    fields.map(([number, value]) => {
      if (typeof value === 'number') return Buffer.from([...varint(number * 8), ...varint(value)]);
      const bytes =
        typeof value === 'string'
          ? Buffer.from(value)
          : value instanceof Uint8Array
            ? Buffer.from(value)
            : wire(value);
      return Buffer.concat([Buffer.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
    }),
  );
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Encodes to exactly these bytes, and the bytes decode to what encodes the same again. */
function expectWire<Message>(
  codec: { encode(m: Message): { finish(): Uint8Array }; decode(bytes: Uint8Array): Message },
  message: Message,
  fields: readonly Field[],
): void {
  expect(hex(codec.encode(message).finish())).toBe(hex(wire(fields)));
  expect(hex(codec.encode(codec.decode(wire(fields))).finish())).toBe(hex(wire(fields)));
}

const ip4 = Uint8Array.of(10, 0, 0, 1);

describe('istio.workload', () => {
  test('Workload, every field', () => {
    expectWire(
      istio.workload.Address,
      {
        workload: {
          name: 'a',
          namespace: 'ns',
          addresses: [ip4, new Uint8Array(16)],
          network: 'net',
          tunnelProtocol: istio.workload.TunnelProtocol.HBONE,
          trustDomain: 'td',
          serviceAccount: 'sa',
          waypoint: { address: { network: 'net', address: ip4 }, hboneMtlsPort: 15008 },
          node: 'n1',
          canonicalName: 'cn',
          canonicalRevision: 'v1',
          workloadType: istio.workload.WorkloadType.POD,
          workloadName: 'wn',
          nativeTunnel: true,
          authorizationPolicies: ['ns/p', 'ns/q'],
          status: istio.workload.WorkloadStatus.UNHEALTHY,
          clusterId: 'c1',
          networkGateway: { hostname: { namespace: 'gw', hostname: 'gw.example' }, hboneMtlsPort: 15008 },
          uid: 'c1//Pod/ns/a',
          hostname: 'h.example',
          services: { 'ns/s.ns.svc.cluster.local': { ports: [{ servicePort: 80, targetPort: 8080 }] } },
          applicationTunnel: { protocol: istio.workload.ApplicationTunnel.Protocol.PROXY, port: 15088 },
          locality: { region: 'r', zone: 'z', subzone: 's' },
          networkMode: istio.workload.NetworkMode.HOST_NETWORK,
          extensions: [{ name: 'e' }],
          capacity: { value: 3 },
        },
      },
      [
        [
          1,
          [
            [1, 'a'],
            [2, 'ns'],
            [3, ip4],
            [3, new Uint8Array(16)],
            [4, 'net'],
            [5, 1],
            [6, 'td'],
            [7, 'sa'],
            [
              8,
              [
                [
                  2,
                  [
                    [1, 'net'],
                    [2, ip4],
                  ],
                ],
                [3, 15008],
              ],
            ],
            [9, 'n1'],
            [10, 'cn'],
            [11, 'v1'],
            [12, 2],
            [13, 'wn'],
            [14, 1],
            [16, 'ns/p'],
            [16, 'ns/q'],
            [17, 1],
            [18, 'c1'],
            [
              19,
              [
                [
                  1,
                  [
                    [1, 'gw'],
                    [2, 'gw.example'],
                  ],
                ],
                [3, 15008],
              ],
            ],
            [20, 'c1//Pod/ns/a'],
            [21, 'h.example'],
            [
              22,
              [
                [1, 'ns/s.ns.svc.cluster.local'],
                [
                  2,
                  [
                    [
                      1,
                      [
                        [1, 80],
                        [2, 8080],
                      ],
                    ],
                  ],
                ],
              ],
            ],
            [
              23,
              [
                [1, 1],
                [2, 15088],
              ],
            ],
            [
              24,
              [
                [1, 'r'],
                [2, 'z'],
                [3, 's'],
              ],
            ],
            [25, 1],
            [26, [[1, 'e']]],
            [27, [[1, 3]]],
          ],
        ],
      ],
    );
  });

  test('Service, every field; a CIDR VIP has a length', () => {
    expectWire(
      istio.workload.Address,
      {
        service: {
          name: 's',
          namespace: 'ns',
          hostname: 's.ns.svc.cluster.local',
          addresses: [{ network: 'net', address: ip4, length: 24 }],
          ports: [{ servicePort: 80, targetPort: 8080, appProtocol: istio.workload.AppProtocol.GRPC }],
          subjectAltNames: ['spiffe://td/ns/ns/sa/sa'],
          waypoint: { hboneMtlsPort: 15008 },
          loadBalancing: {
            routingPreference: [
              istio.workload.LoadBalancing.Scope.NETWORK,
              istio.workload.LoadBalancing.Scope.NODE,
            ],
            mode: istio.workload.LoadBalancing.Mode.FAILOVER,
            healthPolicy: istio.workload.LoadBalancing.HealthPolicy.ALLOW_ALL,
          },
          ipFamilies: istio.workload.IPFamilies.DUAL,
          extensions: [{ name: 'e' }],
          canonical: true,
          ingressUseWaypoint: true,
          weightedWaypoints: [{ destination: { hboneMtlsPort: 1 }, weight: 7 }],
          visibility: istio.workload.Service.Visibility.NAMESPACE,
        },
      },
      [
        [
          2,
          [
            [1, 's'],
            [2, 'ns'],
            [3, 's.ns.svc.cluster.local'],
            [
              4,
              [
                [1, 'net'],
                [2, ip4],
                [3, 24],
              ],
            ],
            [
              5,
              [
                [1, 80],
                [2, 8080],
                [3, 3],
              ],
            ],
            [6, 'spiffe://td/ns/ns/sa/sa'],
            [7, [[3, 15008]]],
            [
              8,
              [
                [1, Uint8Array.of(6, 4)],
                [2, 2],
                [3, 1],
              ],
            ],
            [9, 3],
            [10, [[1, 'e']]],
            [11, 1],
            [12, 1],
            [
              13,
              [
                [1, [[3, 1]]],
                [2, 7],
              ],
            ],
            [14, 1],
          ],
        ],
      ],
    );
  });

  test('capacity 0 is sent, absent capacity is not', () => {
    expectWire(istio.workload.Workload, { capacity: { value: 0 } }, [[27, []]]);
    expect(istio.workload.Workload.decode(new Uint8Array()).capacity).toBeNull();
  });
});

test('istio.security.Authorization', () => {
  expectWire(
    istio.security.Authorization,
    {
      name: 'p',
      namespace: 'ns',
      scope: istio.security.Scope.WORKLOAD_SELECTOR,
      action: istio.security.Action.DENY,
      groups: [
        {
          rules: [
            {
              matches: [
                {
                  namespaces: [{ exact: 'a' }],
                  notNamespaces: [{ prefix: 'b' }],
                  principals: [{ suffix: 'c' }],
                  notPrincipals: [{ presence: {} }],
                  sourceIps: [{ address: ip4, length: 8 }],
                  notSourceIps: [{ address: ip4, length: 9 }],
                  destinationIps: [{ address: ip4, length: 10 }],
                  notDestinationIps: [{ address: ip4, length: 11 }],
                  destinationPorts: [80],
                  notDestinationPorts: [443],
                  serviceAccounts: [{ namespace: 'n', serviceAccount: 's' }],
                  notServiceAccounts: [{ namespace: 'm', serviceAccount: 't' }],
                },
              ],
            },
          ],
        },
      ],
      dryRun: true,
    },
    [
      [1, 'p'],
      [2, 'ns'],
      [3, 2],
      [4, 1],
      [
        5,
        [
          [
            1,
            [
              [
                2,
                [
                  [1, [[1, 'a']]],
                  [2, [[2, 'b']]],
                  [3, [[3, 'c']]],
                  [4, [[4, []]]],
                  [
                    5,
                    [
                      [1, ip4],
                      [2, 8],
                    ],
                  ],
                  [
                    6,
                    [
                      [1, ip4],
                      [2, 9],
                    ],
                  ],
                  [
                    7,
                    [
                      [1, ip4],
                      [2, 10],
                    ],
                  ],
                  [
                    8,
                    [
                      [1, ip4],
                      [2, 11],
                    ],
                  ],
                  [9, Uint8Array.of(80)],
                  [10, Uint8Array.of(0xbb, 0x03)],
                  [
                    11,
                    [
                      [1, 'n'],
                      [2, 's'],
                    ],
                  ],
                  [
                    12,
                    [
                      [1, 'm'],
                      [2, 't'],
                    ],
                  ],
                ],
              ],
            ],
          ],
        ],
      ],
      [6, 1],
    ],
  );
});

describe('discovery', () => {
  test('DeltaDiscoveryRequest', () => {
    expectWire(
      envoy.service.discovery.v3.DeltaDiscoveryRequest,
      {
        node: { id: 'i', cluster: 'c', metadata: { fields: { NODE_NAME: { stringValue: 'n1' } } } },
        typeUrl: 't',
        resourceNamesSubscribe: ['a'],
        resourceNamesUnsubscribe: ['*'],
        initialResourceVersions: { a: '1' },
        responseNonce: 'n',
        errorDetail: { code: 3, message: 'm' },
      },
      [
        [
          1,
          [
            [1, 'i'],
            [2, 'c'],
            [
              3,
              [
                [
                  1,
                  [
                    [1, 'NODE_NAME'],
                    [2, [[3, 'n1']]],
                  ],
                ],
              ],
            ],
          ],
        ],
        [2, 't'],
        [3, 'a'],
        [4, '*'],
        [
          5,
          [
            [1, 'a'],
            [2, '1'],
          ],
        ],
        [6, 'n'],
        [
          7,
          [
            [1, 3],
            [2, 'm'],
          ],
        ],
      ],
    );
  });

  test('a response joined from encoded resources is what any decoder expects', () => {
    const value = Buffer.alloc(300, 7); // longer than one length byte
    const resource = encodeResource({
      name: 'r',
      version: 'v',
      aliases: ['x', 'y'],
      typeUrl: ADDRESS_TYPE_URL,
      value,
    });
    expect(hex(resource)).toBe(
      hex(
        wire([
          [
            2,
            [
              [1, 'v'],
              [
                2,
                [
                  [1, ADDRESS_TYPE_URL],
                  [2, value],
                ],
              ],
              [3, 'r'],
              [4, 'x'],
              [4, 'y'],
            ],
          ],
        ]),
      ),
    );
    const bytes = encodeDeltaResponse({
      typeUrl: ADDRESS_TYPE_URL,
      nonce: 'n',
      systemVersion: '1',
      resources: [resource, resource],
      removed: ['gone'],
    });
    expect(hex(bytes)).toBe(
      hex(
        Buffer.concat([
          wire([
            [1, '1'],
            [4, ADDRESS_TYPE_URL],
            [5, 'n'],
            [6, 'gone'],
          ]),
          resource,
          resource,
        ]),
      ),
    );
    const decoded = envoy.service.discovery.v3.DeltaDiscoveryResponse.decode(bytes);
    expect(decoded.resources.map(({ name, version }) => [name, version])).toEqual([
      ['r', 'v'],
      ['r', 'v'],
    ]);
    expect(decoded.removedResources).toEqual(['gone']);
  });

  test('malformed bytes throw', () => {
    expect(() =>
      envoy.service.discovery.v3.DeltaDiscoveryResponse.decode(Buffer.from('12ff', 'hex')),
    ).toThrow();
    expect(() =>
      AggregatedDiscoveryService.deltaAggregatedResources.requestDeserialize(Buffer.from('0aff', 'hex')),
    ).toThrow();
  });
});

test('certificate signing', () => {
  const { requestSerialize, responseSerialize, requestDeserialize } =
    IstioCertificateService.createCertificate;
  const request = {
    csr: 'PEM',
    validityDuration: 86400,
    metadata: { fields: { ImpersonatedIdentity: { stringValue: 'spiffe://td/ns/a/sa/b' } } },
  };
  const bytes = wire([
    [1, 'PEM'],
    [3, 86400],
    [
      4,
      [
        [
          1,
          [
            [1, 'ImpersonatedIdentity'],
            [2, [[3, 'spiffe://td/ns/a/sa/b']]],
          ],
        ],
      ],
    ],
  ]);
  expect(hex(requestSerialize(request))).toBe(hex(bytes));
  expect(Number(requestDeserialize(bytes).validityDuration)).toBe(86400);
  expect(hex(responseSerialize({ certChain: ['leaf', 'root'] }))).toBe(
    hex(
      wire([
        [1, 'leaf'],
        [1, 'root'],
      ]),
    ),
  );
});
