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
  annotations: {istio.io/note: x}
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
        annotations: { 'istio.io/note': 'x' },
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

describe('what is worth knowing', () => {
  const remarksOn = (text: string) => {
    const decoded = decode(text);
    const remarks =
      decoded.outcome === 'unknown-kind'
        ? [decoded.remark].filter((one) => one !== undefined)
        : decoded.outcome === 'object'
          ? (decoded.remarks ?? [])
          : [];
    return remarks.map(
      ({ path, reason, effect, isProblem }) =>
        `${isProblem ? 'problem' : 'notice'}: ${formatPath(path)}: ${reason}: ${effect}`,
    );
  };
  const object = (apiVersion: string, kind: string, rest = '') =>
    `{apiVersion: ${apiVersion}, kind: ${kind}, metadata: {name: n}${rest}}`;

  test.each([
    ['security.istio.io/v1', 'AuthorisationPolicy', 'kind', 'security.istio.io/v1 AuthorizationPolicy'],
    ['security.istio.io/v1', 'authorizationpolicy', 'kind', 'security.istio.io/v1 AuthorizationPolicy'],
    ['networking.istio.io/v1', 'PeerAuthentication', 'apiVersion', 'security.istio.io/v1 PeerAuthentication'],
    ['networking.istio.io/v1', 'PeerAuthentications', 'kind', 'security.istio.io/v1 PeerAuthentication'],
    ['v1', 'Namepsace', 'kind', 'v1 Namespace'],
    ['apps/v1', 'Pod', 'apiVersion', 'v1 Pod'],
  ])('%s %s is a misspelling, and a problem', (apiVersion, kind, field, meant) => {
    expect(remarksOn(object(apiVersion, kind))).toEqual([
      `problem: ${field}: ${apiVersion} ${kind} is not read: did you mean ${meant}?: nothing of it is in force`,
    ]);
  });

  test('a kind that restricts and is not enforced is a problem, another kind of a mesh a notice', () => {
    expect(remarksOn(object('security.istio.io/v1', 'RequestAuthentication'))).toEqual([
      'problem: kind: security.istio.io/v1 RequestAuthentication is not read here: what it asks of tokens (at a waypoint) is not enforced',
    ]);
    expect(remarksOn(object('networking.istio.io/v1', 'VirtualService'))).toEqual([
      'notice: kind: networking.istio.io/v1 VirtualService is not read here: its routes are not in force: they need a waypoint',
    ]);
    expect(remarksOn(object('gateway.networking.k8s.io/v1', 'TLSRoute'))).toHaveLength(1);
  });

  test.each([
    ['apps/v1', 'Deployment'],
    ['v1', 'ConfigMap'],
    ['v1', 'Secret'],
    ['v1', 'Endpoints'],
    ['rbac.authorization.k8s.io/v1', 'Role'],
    ['networking.k8s.io/v1', 'NetworkPolicy'],
    ['serving.knative.dev/v1', 'Service'],
    ['x.example/v1', 'Anything'],
  ])('%s %s is none of our business', (apiVersion, kind) => {
    expect(remarksOn(object(apiVersion, kind))).toEqual([]);
  });

  test('a pod that its agent could not use, though it is well written', () => {
    expect(remarksOn(object('v1', 'Pod', ', spec: {nodeName: a}'))).toEqual([
      'problem: metadata.uid: is missing or not a pod uid: its agent cannot tell its processes: all its connections are refused',
      'problem: status.podIPs: has no address: the mesh does not know it: in the mesh its connections are refused, and nobody reaches it',
    ]);
    expect(remarksOn(object('v1', 'Pod'))).toEqual([]);
    expect(
      remarksOn(
        '{apiVersion: v1, kind: Pod, metadata: {name: n, uid: u, annotations: {ambient.istio.io/dns-captured: "false"}}, spec: {nodeName: a}, status: {phase: Pending}}',
      ),
    ).toEqual([
      'notice: metadata.annotations["ambient.istio.io/dns-captured"]: is not known: did you mean ambient.istio.io/dns-capture?: ignored: what it may mean to leave alone is captured',
    ]);
  });

  test.each([
    [
      'PeerAuthentication',
      '{mtls: {mode: STRIKT}}',
      'STRICT is in force in its place, wherever it may have been meant to apply',
    ],
    ['AuthorizationPolicy', '{rules: 5}', 'in its place, an ALLOW of nothing is in force'],
    ['AuthorizationPolicy', '{action: DENIE}', 'in its place, a DENY of everything is in force'],
    [
      'AuthorizationPolicy',
      '{action: DENY, rules: [{from: [{source: {namespaces: [a], ipBlocks: [x]}}]}]}',
      'in its place, what can be read of it is in force, and denies more',
    ],
  ])('of a %s that was never good: what holds its place (%s)', (kind, spec, standIn) => {
    expect(decode(object('security.istio.io/v1', kind, `, spec: ${spec}`))).toMatchObject({
      outcome: 'invalid',
      standIn,
    });
  });
});
