import type { Decoded, RawObject } from '../files/index.js';
import { Fields } from './fields.js';
import { type Kind, keyOf, type MeshObject, type Pod, type Service } from './types.js';

interface KindDecoder {
  readonly namespaced: boolean;
  /** Form of metadata.name. */
  readonly nameForm: 'label' | 'subdomain';
  readonly decode: (fields: Fields, namespace: string, name: string) => MeshObject;
}

const KINDS: ReadonlyMap<string, KindDecoder> = new Map([
  ['v1 Namespace', { namespaced: false, nameForm: 'label', decode: decodeNamespace }],
  ['v1 Node', { namespaced: false, nameForm: 'subdomain', decode: decodeNode }],
  ['v1 ServiceAccount', { namespaced: true, nameForm: 'subdomain', decode: decodeServiceAccount }],
  ['v1 Pod', { namespaced: true, nameForm: 'subdomain', decode: decodePod }],
  ['v1 Service', { namespaced: true, nameForm: 'label', decode: decodeService }],
]);

/** Checks a manifest and keeps what the mesh uses of it. Names are held to their DNS forms: identities and resource names are built of them. */
export function decodeObject(object: RawObject): Decoded<MeshObject> {
  const kind = KINDS.get(`${object.apiVersion} ${object.kind}`);
  if (kind === undefined) return { outcome: 'unknown-kind' };
  const fields = new Fields(object);
  const metadata = fields.object('metadata');
  const name = metadata.name('name', kind.nameForm);
  const namespace = metadata.name('namespace', 'label', kind.namespaced ? 'default' : '');
  if (!kind.namespaced && namespace !== '') metadata.wrong('namespace', `${object.kind} has no namespace`);
  const value = kind.decode(fields, namespace, name);
  const key = keyOf(object.kind as Kind, kind.namespaced ? namespace : '', name);
  if (fields.problems.length > 0) return { outcome: 'invalid', key, problems: fields.problems };
  return { outcome: 'object', key, value };
}

function decodeNamespace(fields: Fields, _namespace: string, name: string): MeshObject {
  const metadata = fields.object('metadata');
  return {
    kind: 'Namespace',
    name,
    labels: metadata.textMap('labels'),
    annotations: metadata.textMap('annotations'),
  };
}

function decodeNode(fields: Fields, _namespace: string, name: string): MeshObject {
  return { kind: 'Node', name, labels: fields.object('metadata').textMap('labels') };
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
  return {
    kind: 'Pod',
    namespace,
    name,
    uid: metadata.text('uid'),
    labels: metadata.textMap('labels'),
    annotations: metadata.textMap('annotations'),
    owner: ownerOf(metadata),
    nodeName: spec.name('nodeName', 'subdomain'),
    serviceAccount: spec.name('serviceAccountName', 'subdomain', 'default'),
    hostNetwork: spec.flag('hostNetwork'),
    phase: status.choice('phase', PHASES, 'Pending'),
    ready: ready && !metadata.has('deletionTimestamp'),
    addresses: podAddresses(status),
    ports: containerPorts(spec),
  };
}

function ownerOf(metadata: Fields): Pod['owner'] {
  const owner = metadata.objects('ownerReferences').find((reference) => reference.flag('controller'));
  return owner === undefined ? null : { kind: owner.text('kind'), name: owner.text('name') };
}

function podAddresses(status: Fields): readonly string[] {
  const several = status.objects('podIPs').map((entry) => entry.address('ip'));
  const addresses = several.length > 0 ? several : [status.address('podIP')];
  return [...new Set(addresses.filter((address) => address !== ''))];
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
    ports: servicePorts(spec),
    selector: spec.has('selector') ? spec.textMap('selector') : null,
    ipFamilies: ipFamilies(spec),
    publishNotReadyAddresses: spec.flag('publishNotReadyAddresses'),
    internalTrafficPolicy: spec.choice('internalTrafficPolicy', ['Cluster', 'Local'], 'Cluster'),
    trafficDistribution: spec.text('trafficDistribution'),
  };
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
