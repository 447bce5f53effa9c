import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { formatPath, type RawObject } from '../../mesh/manifests/index.js';
import { decodeObject } from './index.js';

const decode = (text: string) => decodeObject(parse(text) as RawObject);

function problemsOf(text: string): string[] {
  const decoded = decode(text);
  return decoded.outcome === 'invalid'
    ? decoded.problems.map(({ path, reason }) => `${formatPath(path)}: ${reason}`)
    : [];
}

describe('Pod', () => {
  test('every field that is used', () => {
    const decoded = decode(`
apiVersion: v1
kind: Pod
metadata:
  name: cart-1
  namespace: shop
  uid: u-1
  labels: {app: cart}
  annotations: {note: x}
  ownerReferences: [{kind: Node, name: n}, {kind: ReplicaSet, name: cart-abc, controller: true}]
spec:
  nodeName: n1
  serviceAccountName: cart
  containers:
    - name: c
      ports: [{name: http, containerPort: 8080}, {containerPort: 1}, {name: dns, containerPort: 53, protocol: UDP}]
status:
  phase: Running
  conditions: [{type: Ready, status: "True"}]
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: "2001:DB8:0::1"}]
`);
    expect(decoded).toEqual({
      outcome: 'object',
      key: 'Pod/shop/cart-1',
      value: {
        kind: 'Pod',
        namespace: 'shop',
        name: 'cart-1',
        uid: 'u-1',
        labels: { app: 'cart' },
        annotations: { note: 'x' },
        owner: { kind: 'ReplicaSet', name: 'cart-abc' },
        nodeName: 'n1',
        serviceAccount: 'cart',
        hostNetwork: false,
        phase: 'Running',
        ready: true,
        addresses: ['10.0.0.1', '2001:db8::1'],
        ports: [
          { name: 'http', port: 8080, protocol: 'TCP' },
          { name: 'dns', port: 53, protocol: 'UDP' },
        ],
        hostname: '',
        subdomain: '',
        inboundBinding: null,
      },
    });
  });

  test('defaults, as Kubernetes has them; one being deleted is not ready', () => {
    const text = (extra: string) => `
apiVersion: v1
kind: Pod
metadata: {name: a${extra}}
status: {conditions: [{type: Ready, status: "True"}], podIP: 1.2.3.4}`;
    const decoded = decode(text(''));
    expect(decoded).toMatchObject({
      key: 'Pod/default/a',
      value: {
        namespace: 'default',
        serviceAccount: 'default',
        nodeName: '',
        phase: 'Pending',
        ready: true,
        addresses: ['1.2.3.4'],
      },
    });
    expect(decode(text(', deletionTimestamp: "2026-01-01T00:00:00Z"'))).toMatchObject({
      value: { ready: false },
    });
  });

  test('all that is wrong is reported, with its field', () => {
    expect(
      problemsOf(`
apiVersion: v1
kind: Pod
metadata: {name: Bad_Name, namespace: a/b, labels: {n: 1}}
spec:
  nodeName: [x]
  serviceAccountName: ../root
  hostNetwork: "yes"
  containers: {}
status: {phase: Happy, podIPs: [{ip: 10.0.0.256}]}
`),
    ).toEqual([
      "metadata.name: must be a DNS subdomain of lower-case letters, digits and '-', not 'Bad_Name'",
      "metadata.namespace: must be a DNS label of lower-case letters, digits and '-', not 'a/b'",
      'metadata.labels.n: must be a text, not 1; quote it',
      'spec.nodeName: must be a text, not a list',
      "spec.serviceAccountName: must be a DNS subdomain of lower-case letters, digits and '-', not '../root'",
      'spec.hostNetwork: must be true or false, not "yes"',
      "status.podIPs[0].ip: must be an IP address, not '10.0.0.256'",
      "status.phase: must be one of Pending, Running, Succeeded, Failed, Unknown, not 'Happy'",
      'spec.containers: must be a list, not an object',
    ]);
  });
});

test.each(['spec', 'status'])('a part of a Pod that is no object is reported once: %s', (part) => {
  expect(problemsOf(`{apiVersion: v1, kind: Pod, metadata: {name: a}, ${part}: []}`)).toEqual([
    `${part}: must be an object`,
  ]);
});

describe('Service', () => {
  const service = (spec: string) =>
    decode(`{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n}, spec: ${spec}}`);

  test('VIPs, ports, selector', () => {
    expect(
      service(
        '{clusterIPs: [10.0.0.9, "fd00::9"], selector: {app: a}, ports: [{port: 80}, {name: g, port: 81, targetPort: grpc}]}',
      ),
    ).toMatchObject({
      value: {
        clusterIPs: ['10.0.0.9', 'fd00::9'],
        selector: { app: 'a' },
        ports: [
          { port: 80, targetPort: 80 },
          { port: 81, targetPort: 'grpc' },
        ],
      },
    });
  });

  test.each(['{clusterIP: None}', '{clusterIPs: [None]}', '{clusterIP: ""}', '{}'])(
    '%s has no VIP',
    (spec) => {
      expect(service(spec)).toMatchObject({ value: { clusterIPs: [], selector: null } });
    },
  );

  test.each([
    ['{ports: [{port: 0}]}', 'spec.ports[0].port: must be a port from 1 to 65535, not 0'],
    ['{ports: [{}]}', 'spec.ports[0].port: is required'],
    [
      '{ports: [{port: 1, targetPort: "80"}]}',
      'spec.ports[0].targetPort: must be a port from 1 to 65535 or the name of a port, not "80"',
    ],
    ['{clusterIPs: [None, 1.1.1.1]}', "spec.clusterIPs[0]: must be an IP address, not 'None'"],
    ['{type: Odd}', "spec.type: must be one of ClusterIP, NodePort, LoadBalancer, ExternalName, not 'Odd'"],
    ['{ipFamilies: [IPv5]}', "spec.ipFamilies: must hold IPv4 and IPv6 only, not 'IPv5'"],
    ['[]', 'spec: must be an object'],
  ])('%s is refused', (spec, problem) => {
    expect(problemsOf(`{apiVersion: v1, kind: Service, metadata: {name: s}, spec: ${spec}}`)).toEqual([
      problem,
    ]);
  });
});

test('a namespaced Node is refused, other kinds and API versions are unknown', () => {
  expect(problemsOf('{apiVersion: v1, kind: Node, metadata: {name: n, namespace: x}}')).toEqual([
    'metadata.namespace: Node has no namespace',
  ]);
  expect(decode('{apiVersion: apps/v1, kind: Pod, metadata: {name: n}}').outcome).toBe('unknown-kind');
  expect(decode('{apiVersion: v1, kind: Secret, metadata: {name: n}}').outcome).toBe('unknown-kind');
});
