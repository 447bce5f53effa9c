import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { formatPath, type RawObject } from '../../mesh/manifests/index.js';
import { decodeObject, type MeshObject } from './index.js';

const decode = (kind: string, spec: string, version = 'v1') =>
  decodeObject(
    parse(
      `{apiVersion: networking.istio.io/${version}, kind: ${kind}, metadata: {name: o, namespace: a}, spec: ${spec}}`,
    ) as RawObject,
  );

function sound(kind: string, spec: string): MeshObject {
  const decoded = decode(kind, spec);
  if (decoded.outcome !== 'object') throw new Error(JSON.stringify(decoded));
  return decoded.value;
}

function problemsOf(kind: string, spec: string): string[] {
  const decoded = decode(kind, spec);
  return decoded.outcome === 'invalid'
    ? decoded.problems.map(({ path, reason }) => `${formatPath(path)}: ${reason}`)
    : [];
}

test.each([
  ['ServiceEntry', '{hosts: [a.org]}'],
  ['WorkloadEntry', '{address: 192.0.2.1}'],
  ['DestinationRule', '{host: a.org}'],
  ['Sidecar', '{}'],
])('%s: one reading of all versions', (kind, spec) => {
  const [first, ...others] = ['v1', 'v1beta1', 'v1alpha3'].map((version) => decode(kind, spec, version));
  expect(first).toMatchObject({ outcome: 'object', key: `${kind}/a/o` });
  expect(others).toEqual([first, first]);
});

describe('ServiceEntry', () => {
  test.each([
    ['{}', 'spec.hosts: is required'],
    ['{hosts: ["*"]}', "spec.hosts: must hold DNS names, or *.name, not '*'"],
    ['{hosts: [a b]}', "spec.hosts: must hold DNS names, or *.name, not 'a b'"],
    ['{hosts: [a.org], addreses: []}', 'spec.addreses: is not known'],
    [
      '{hosts: [a.org], addresses: [10.0.0.0/33]}',
      "spec.addresses: [0] must be an IP address or a CIDR of at least one bit, not '10.0.0.0/33'",
    ],
    [
      '{hosts: [a.org], addresses: [0.0.0.0/0]}',
      "spec.addresses: [0] must be an IP address or a CIDR of at least one bit, not '0.0.0.0/0'",
    ],
    [
      '{hosts: [a.org], addresses: [10.0.0.1/x]}',
      "spec.addresses: [0] must be an IP address or a CIDR of at least one bit, not '10.0.0.1/x'",
    ],
    [
      '{hosts: [a.org], addresses: [240.240.3.4]}',
      'spec.addresses: [0] is of a range whose addresses are given automatically',
    ],
    [
      '{hosts: [a.org], addresses: ["2001:2:0:9::1"]}',
      'spec.addresses: [0] is of a range whose addresses are given automatically',
    ],
    ['{hosts: [a.org], ports: [{name: x}]}', 'spec.ports[0].number: is required'],
    ['{hosts: [a.org], ports: [{number: 1}, {number: 1}]}', 'spec.ports[1].number: 1 is there twice'],
    [
      '{hosts: [a.org], resolution: STATIC, endpoints: [{address: b.org}]}',
      'spec.endpoints: must have IP addresses with resolution STATIC',
    ],
    [
      '{hosts: [a.org], resolution: STATIC, endpoints: [{}]}',
      'spec.endpoints[0].address: is required where there is no network',
    ],
    [
      '{hosts: [a.org], resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {http: 1}}]}',
      "spec.endpoints: names a port 'http' that the entry does not have",
    ],
    [
      '{hosts: [a.org], resolution: STATIC, endpoints: [{address: 1.2.3.4, weight: -1}]}',
      'spec.endpoints[0].weight: must be a whole number from 0 to 4294967295, not -1',
    ],
    [
      '{hosts: [a.org], endpoints: [{address: 1.2.3.4}]}',
      'spec.resolution: is NONE, which goes where the client wants and has no endpoints',
    ],
    [
      '{hosts: [a.org], resolution: DNS, addresses: [10.0.0.0/8]}',
      'spec.addresses: cannot hold a CIDR with resolution DNS',
    ],
    [
      '{hosts: ["*.a.org"], resolution: DNS}',
      'spec.hosts: a wildcard cannot be resolved: resolution DNS needs endpoints',
    ],
    [
      '{hosts: [a.org], resolution: DYNAMIC_DNS, endpoints: [{address: b.org}]}',
      'spec.endpoints: cannot be given with resolution DYNAMIC_DNS',
    ],
    [
      '{hosts: [a.org], resolution: STATIC, endpoints: [], workloadSelector: {labels: {a: b}}}',
      'spec.workloadSelector: is given beside endpoints: only one of them can be',
    ],
    [
      '{hosts: [a.org], resolution: ALWAYS}',
      "spec.resolution: must be one of NONE, STATIC, DNS, DNS_ROUND_ROBIN, DYNAMIC_DNS, not 'ALWAYS'",
    ],
    [
      '{hosts: [a.org], ports: [{number: 1, protocol: QUIC}]}',
      "spec.ports[0].protocol: must be one of TCP, TLS, HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, MYSQL, REDIS, UDP, not 'QUIC'",
    ],
  ])('%s is refused', (spec, problem) => {
    expect(problemsOf('ServiceEntry', spec)).toEqual([problem]);
  });

  test('a Unix socket is nobody else’s endpoint', () => {
    const entry = sound(
      'ServiceEntry',
      '{hosts: [a.org], resolution: STATIC, endpoints: [{address: "unix:///x"}, {address: 192.0.2.1}]}',
    );
    expect(entry).toMatchObject({
      endpoints: [{ address: '192.0.2.1' }],
      limits: [{ field: 'spec.endpoints[0].address' }],
    });
  });
});

describe('WorkloadEntry', () => {
  test.each([
    ['{}', 'spec.address: is required where there is no network'],
    ['{address: "a b"}', "spec.address: must be an IP address or a DNS name, not 'a b'"],
    ['{address: 192.0.2.1, ports: {http: 0}}', 'spec.ports.http: must be a port from 1 to 65535, not 0'],
    [
      '{address: 192.0.2.1, serviceAccount: ../x}',
      "spec.serviceAccount: must be a DNS subdomain of lower-case letters, digits and '-', not '../x'",
    ],
  ])('%s is refused', (spec, problem) => {
    expect(problemsOf('WorkloadEntry', spec)).toEqual([problem]);
  });
});

describe('DestinationRule', () => {
  const policy = (text: string) => `{host: a.org, trafficPolicy: ${text}}`;

  test.each([
    ['{}', 'spec.host: is required'],
    ['{host: "a.*"}', "spec.host: must be a DNS name, *.name or *, not 'a.*'"],
    [policy('{loadBalancr: {}}'), 'spec.trafficPolicy.loadBalancr: is not known'],
    [
      policy('{loadBalancer: {simple: FASTEST}}'),
      "spec.trafficPolicy.loadBalancer.simple: must be one of UNSPECIFIED, RANDOM, LEAST_REQUEST, LEAST_CONN, ROUND_ROBIN, PASSTHROUGH, not 'FASTEST'",
    ],
    [
      policy('{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}'),
      'spec.trafficPolicy.loadBalancer.consistentHash: is given beside simple: only one of them can be',
    ],
    [
      policy('{connectionPool: {tcp: {connectTimeout: 5}}}'),
      'spec.trafficPolicy.connectionPool.tcp.connectTimeout: must be a text, not 5',
    ],
    [
      policy('{connectionPool: {tcp: {connectTimeout: 5 s}}}'),
      "spec.trafficPolicy.connectionPool.tcp.connectTimeout: must be a duration from 1ms to 8760h like 10s, not '5 s'",
    ],
    [
      policy('{connectionPool: {tcp: {maxConnectionDuration: 1us}}}'),
      "spec.trafficPolicy.connectionPool.tcp.maxConnectionDuration: must be a duration from 1ms to 8760h like 10s, not '1us'",
    ],
    [
      policy('{outlierDetection: {maxEjectionPercent: 101}}'),
      'spec.trafficPolicy.outlierDetection.maxEjectionPercent: must be a whole number from 0 to 100, not 101',
    ],
  ])('%s is refused', (spec, problem) => {
    expect(problemsOf('DestinationRule', spec)).toEqual([problem]);
  });

  test.each([
    ['{}', 5],
    ['{consecutive5xxErrors: 0}', 0],
    ['{consecutive5xxErrors: 0, consecutiveGatewayErrors: 4}', 4],
    ['{consecutive5xxErrors: 9, consecutiveGatewayErrors: 4}', 4],
    ['{splitExternalLocalOriginErrors: true, consecutive5xxErrors: 1}', 5],
    ['{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2}', 2],
  ])('connects that fail, of %s', (detection, consecutiveConnectFailures) => {
    expect(sound('DestinationRule', policy(`{outlierDetection: ${detection}}`))).toMatchObject({
      trafficPolicy: { outlierDetection: { consecutiveConnectFailures } },
    });
  });

  test('one for some clients only is not in force', () => {
    expect(
      sound(
        'DestinationRule',
        '{host: a.org, workloadSelector: {matchLabels: {a: b}}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}',
      ),
    ).toMatchObject({ trafficPolicy: null, limits: [{ field: 'spec.workloadSelector' }] });
  });
});

test.each([
  ['{}', null],
  ['{outboundTrafficPolicy: {}}', 'registry-only'],
  ['{outboundTrafficPolicy: {mode: ALLOW_ANY}}', 'allow-any'],
])('Sidecar %s', (spec, outbound) => {
  expect(sound('Sidecar', spec)).toMatchObject({ outbound, isForNamespace: true });
});

test('EndpointSlice', () => {
  const slice = (rest: string) =>
    decodeObject(
      parse(
        `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s, namespace: a}, ${rest}}`,
      ) as RawObject,
    );
  expect(slice('addressType: IPv4, endpoints: [{addresses: [10.0.0.256]}]')).toMatchObject({
    outcome: 'invalid',
  });
  expect(slice('endpoints: []')).toMatchObject({ problems: [{ reason: 'is required' }] });
  expect(
    slice(
      'addressType: IPv6, endpoints: [{addresses: ["2001:DB8::1"], conditions: {ready: null}}], ports: [{name: x}]',
    ),
  ).toMatchObject({
    value: {
      endpoints: [{ addresses: ['2001:db8::1'], ready: true }],
      ports: [],
      limits: [{ field: 'ports[0].port' }],
    },
  });
});
