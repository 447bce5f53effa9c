import {
  checkDataplaneMode,
  decoderOf,
  type Fields,
  type KindDecoder,
  readPod,
  remarkOnPod,
} from '../../mesh/manifests/index.js';
import { decodeEndpointSlice } from './decode-endpoint-slice.js';
import { decodeServiceEntry, decodeWorkloadEntry, isHostname } from './decode-service-entry.js';
import { decodeTelemetry } from './decode-telemetry.js';
import { decodeDestinationRule, decodeSidecar } from './decode-traffic.js';
import { decodeAuthorizationPolicy } from './policies/authorization-policy.js';
import { decodePeerAuthentication } from './policies/peer-authentication.js';
import type { MeshObject, Pod, Service } from './types.js';
import { remarkOnUnread } from './unread-kinds.js';

const KINDS: ReadonlyMap<string, KindDecoder<MeshObject>> = new Map([
  ['v1 Namespace', { namespaced: false, nameForm: 'label', decode: decodeNamespace }],
  ['v1 Node', { namespaced: false, nameForm: 'subdomain', decode: decodeNode }],
  ['v1 ServiceAccount', { namespaced: true, nameForm: 'subdomain', decode: decodeServiceAccount }],
  ['v1 Pod', { namespaced: true, nameForm: 'subdomain', decode: decodePod }],
  ['v1 Service', { namespaced: true, nameForm: 'label', decode: decodeService }],
  [
    'discovery.k8s.io/v1 EndpointSlice',
    { namespaced: true, nameForm: 'subdomain', decode: decodeEndpointSlice },
  ],
  ...inVersions('networking.istio.io', ['v1', 'v1beta1', 'v1alpha3'], {
    ServiceEntry: decodeServiceEntry,
    WorkloadEntry: decodeWorkloadEntry,
    DestinationRule: decodeDestinationRule,
  }),
  ...inVersions(
    'networking.istio.io',
    ['v1', 'v1beta1', 'v1alpha3'],
    { Sidecar: decodeSidecar },
    { standIn },
  ),
  ...inVersions('telemetry.istio.io', ['v1', 'v1alpha1'], { Telemetry: decodeTelemetry }),
  ...inVersions(
    'security.istio.io',
    ['v1', 'v1beta1'],
    { PeerAuthentication: decodePeerAuthentication, AuthorizationPolicy: decodeAuthorizationPolicy },
    { standIn },
  ),
]);

/** What is in force in place of an object that was never good. */
function standIn(object: MeshObject): string {
  if (object.kind === 'PeerAuthentication')
    return 'STRICT is in force in its place, wherever it may have been meant to apply';
  if (object.kind !== 'AuthorizationPolicy') return 'in its place, REGISTRY_ONLY is in force';
  const { action, rules } = object;
  if (action === 'ALLOW' && rules.length === 0) return 'in its place, an ALLOW of nothing is in force';
  if (rules.some(({ clauses, beyond }) => clauses.length === 0 && beyond.length === 0))
    return `in its place, a ${action} of everything is in force`;
  return `in its place, what can be read of it is in force, and ${action === 'ALLOW' ? 'allows less' : 'denies more'}`;
}

/** Namespaced kinds that are read alike in all API versions of their group. */
function inVersions(
  group: string,
  versions: readonly string[],
  kinds: Readonly<Record<string, KindDecoder<MeshObject>['decode']>>,
  more: Pick<KindDecoder<MeshObject>, 'standIn'> = {},
): [string, KindDecoder<MeshObject>][] {
  return Object.entries(kinds).flatMap(([kind, decode]) =>
    versions.map((version): [string, KindDecoder<MeshObject>] => [
      `${group}/${version} ${kind}`,
      { namespaced: true, nameForm: 'subdomain', decode, ...more },
    ]),
  );
}

/** `<apiVersion> <kind>` of everything that is read, the version to be preferred first. */
export const OBJECT_KINDS: readonly string[] = [...KINDS.keys()];

/** Checks a manifest and keeps what the mesh uses of it. */
export const decodeObject = decoderOf(KINDS, ({ apiVersion, kind }) =>
  remarkOnUnread(apiVersion, kind, OBJECT_KINDS),
);

function decodeNamespace(fields: Fields, _namespace: string, name: string): MeshObject {
  const metadata = fields.object('metadata');
  const labels = metadata.textMap('labels');
  checkDataplaneMode(metadata, labels);
  return {
    kind: 'Namespace',
    name,
    labels,
    annotations: metadata.textMap('annotations'),
  };
}

function decodeNode(fields: Fields, _namespace: string, name: string): MeshObject {
  const metadata = fields.object('metadata');
  return { kind: 'Node', name, uid: metadata.text('uid'), labels: metadata.textMap('labels') };
}

function decodeServiceAccount(_fields: Fields, namespace: string, name: string): MeshObject {
  return { kind: 'ServiceAccount', namespace, name };
}

const PHASES = ['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown'] as const;
const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const;

function decodePod(fields: Fields, namespace: string, name: string): Pod {
  const metadata = fields.object('metadata');
  const spec = fields.object('spec');
  const status = fields.object('status');
  const ready = status
    .objects('conditions')
    .some((condition) => condition.text('type') === 'Ready' && condition.text('status') === 'True');
  const pod = readPod(metadata, spec, status);
  remarkOnPod(pod, metadata, status);
  return {
    kind: 'Pod',
    namespace,
    name,
    ...pod,
    owner: ownerOf(metadata),
    phase: status.choice('phase', PHASES, 'Pending'),
    ready: ready && !metadata.has('deletionTimestamp'),
    ports: containerPorts(spec),
    hostname: spec.text('hostname'),
    subdomain: spec.text('subdomain'),
    inboundBinding: inboundBindingOf(metadata),
  };
}

/** `PROXY/15088`, `NONE/8080`, `PROXY` (the port that is asked for). */
function inboundBindingOf(metadata: Fields): Pod['inboundBinding'] {
  const annotation = 'ambient.istio.io/waypoint-inbound-binding';
  const text = metadata.textMap('annotations')[annotation];
  if (text === undefined) return null;
  const parts = /^(PROXY|NONE)(?:\/(\d{1,5}))?$/.exec(text);
  const port = Number(parts?.[2] ?? 0);
  if (parts === null || port > 65_535) {
    metadata.wrong(`annotations[${annotation}]`, 'must be PROXY or NONE, with a port like PROXY/15088');
    return null;
  }
  return { protocol: parts[1] as 'NONE' | 'PROXY', port };
}

function ownerOf(metadata: Fields): Pod['owner'] {
  const owner = metadata.objects('ownerReferences').find((reference) => reference.flag('controller'));
  return owner === undefined ? null : { kind: owner.text('kind'), name: owner.text('name') };
}

/** Of init containers too: they may be sidecars that serve. */
function containerPorts(spec: Fields): Pod['ports'] {
  return [...spec.objects('containers'), ...spec.objects('initContainers')]
    .flatMap((container) => container.objects('ports'))
    .map((port) => ({
      name: port.text('name'),
      port: port.port('containerPort'),
      protocol: port.choice('protocol', PROTOCOLS, 'TCP'),
    }))
    .filter((port) => port.name !== '');
}

const SERVICE_TYPES = ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'] as const;

function decodeService(fields: Fields, namespace: string, name: string): Service {
  const metadata = fields.object('metadata');
  const spec = fields.object('spec');
  return {
    kind: 'Service',
    namespace,
    name,
    labels: metadata.textMap('labels'),
    annotations: metadata.textMap('annotations'),
    type: spec.choice('type', SERVICE_TYPES, 'ClusterIP'),
    clusterIPs: clusterAddresses(spec),
    externalName: externalName(spec),
    externalAddresses: externalAddresses(spec, fields.object('status')),
    ports: servicePorts(spec),
    selector: spec.has('selector') ? spec.textMap('selector') : null,
    ipFamilies: ipFamilies(spec),
    publishNotReadyAddresses: spec.flag('publishNotReadyAddresses'),
    internalTrafficPolicy: spec.choice('internalTrafficPolicy', ['Cluster', 'Local'], 'Cluster'),
    trafficDistribution: spec.text('trafficDistribution'),
    sessionAffinity: spec.choice('sessionAffinity', ['None', 'ClientIP'], 'None'),
  };
}

function externalName(spec: Fields): string {
  if (spec.text('type') !== 'ExternalName') return '';
  if (!spec.has('externalName')) spec.wrong('externalName', 'is required');
  const name = spec.text('externalName').toLowerCase().replace(/\.$/, '');
  if (name !== '' && !isHostname(name))
    spec.wrong('externalName', `must be a DNS name, not '${spec.text('externalName')}'`);
  return name;
}

/** Where it is reached from outside: of its load balancer, else spec.externalIPs. */
function externalAddresses(spec: Fields, status: Fields): readonly string[] {
  const given = status
    .object('loadBalancer')
    .objects('ingress')
    .map((ingress) => ingress.address('ip'));
  return [...new Set([...given, ...spec.addresses('externalIPs')])].filter((address) => address !== '');
}

function clusterAddresses(spec: Fields): readonly string[] {
  if (spec.has('clusterIPs')) {
    const texts = spec.texts('clusterIPs');
    if (texts.length === 1 && texts[0] === 'None') return [];
    return spec.addresses('clusterIPs');
  }
  if (spec.text('clusterIP') === 'None') return [];
  const address = spec.address('clusterIP');
  return address === '' ? [] : [address];
}

function servicePorts(spec: Fields): Service['ports'] {
  return spec.objects('ports').map((fields) => {
    if (!fields.has('port')) fields.wrong('port', 'is required');
    const port = fields.port('port');
    return {
      name: fields.text('name'),
      port,
      targetPort: fields.portOrName('targetPort') ?? port,
      protocol: fields.choice('protocol', PROTOCOLS, 'TCP'),
      appProtocol: fields.text('appProtocol'),
    };
  });
}

function ipFamilies(spec: Fields): Service['ipFamilies'] {
  const known = ['IPv4', 'IPv6'] as const;
  return spec.texts('ipFamilies').flatMap((text) => {
    const family = known.find((candidate) => candidate === text);
    if (family === undefined) spec.wrong('ipFamilies', `must hold IPv4 and IPv6 only, not '${text}'`);
    return family === undefined ? [] : [family];
  });
}
