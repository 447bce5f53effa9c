import { tryCanonicalAddress } from '../../mesh/common/address.js';
import type { Fields } from '../../mesh/manifests/index.js';
import { Limits, readCreatedAt } from './limits.js';
import type { Limitation } from './report.js';
import type {
  EndpointFields,
  EntryAddress,
  LocalityFields,
  ServiceEntry,
  ServiceEntryPort,
  Visibility,
  WorkloadEntry,
} from './service-types.js';
import type { Service } from './types.js';

const ENDPOINT_FIELDS = ['address', 'ports', 'labels', 'network', 'locality', 'weight', 'serviceAccount'];

export function decodeWorkloadEntry(fields: Fields, namespace: string, name: string): WorkloadEntry {
  const metadata = fields.object('metadata');
  const spec = fields.object('spec');
  const limits = new Limits();
  limits.check(spec, ENDPOINT_FIELDS);
  const endpoint = readEndpoint(spec, limits);
  if (endpoint.hostname !== '')
    limits.add(spec, 'address', {
      reason: 'is a name',
      effect: 'resolved when a client connects; the workload is not known by its addresses',
    });
  const isUnhealthy = fields
    .object('status')
    .objects('conditions')
    .some((condition) => condition.text('type') === 'Healthy' && condition.text('status') === 'False');
  return {
    kind: 'WorkloadEntry',
    namespace,
    name,
    createdAt: readCreatedAt(metadata),
    ...endpoint,
    labels: { ...metadata.textMap('labels'), ...endpoint.labels },
    healthy: !isUnhealthy,
    limits: limits.list,
  };
}

/** The fields that a WorkloadEntry and an inline endpoint have in common. */
function readEndpoint(fields: Fields, limits: Limits): EndpointFields {
  const { address, hostname } = readTarget(fields, limits);
  const network = fields.text('network');
  if (address === '' && hostname === '' && network === '' && !fields.text('address').startsWith('unix://'))
    fields.wrong('address', 'is required where there is no network');
  return {
    address,
    hostname,
    ports: readPortMap(fields.object('ports')),
    labels: fields.textMap('labels'),
    network,
    locality: readLocality(fields.text('locality')),
    weight: fields.integer('weight', 0, 0xffffffff) ?? 0,
    serviceAccount: fields.name('serviceAccount', 'subdomain'),
  };
}

function readTarget(fields: Fields, limits: Limits): { address: string; hostname: string } {
  const text = fields.text('address');
  if (text === '') return { address: '', hostname: '' };
  if (text.startsWith('unix://')) {
    limits.add(fields, 'address', {
      reason: 'is a Unix socket, which is in nobody else’s reach',
      effect: 'the endpoint is left out',
    });
    return { address: '', hostname: '' };
  }
  const address = tryCanonicalAddress(text);
  if (address !== null) return { address, hostname: '' };
  const hostname = text.toLowerCase().replace(/\.$/, '');
  if (!isHostname(hostname)) fields.wrong('address', `must be an IP address or a DNS name, not '${text}'`);
  return { address: '', hostname };
}

function readPortMap(fields: Fields): Readonly<Record<string, number>> {
  return Object.fromEntries(fields.keys.map((name) => [name, fields.port(name)]));
}

/** `region/zone/subzone`, of which the last may be missing. */
function readLocality(text: string): LocalityFields {
  const [region = '', zone = '', subzone = ''] = text.split('/');
  return { region, zone, subzone };
}

const SERVICE_ENTRY_FIELDS = [
  'hosts',
  'addresses',
  'ports',
  'location',
  'resolution',
  'endpoints',
  'workloadSelector',
  'exportTo',
  'subjectAltNames',
];
const LOCATIONS = ['MESH_EXTERNAL', 'MESH_INTERNAL'] as const;
const RESOLUTIONS = ['NONE', 'STATIC', 'DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS'] as const;

export function decodeServiceEntry(fields: Fields, namespace: string, name: string): ServiceEntry {
  const metadata = fields.object('metadata');
  const spec = fields.object('spec');
  const limits = new Limits();
  limits.check(spec, SERVICE_ENTRY_FIELDS);
  const entry: ServiceEntry = {
    kind: 'ServiceEntry',
    namespace,
    name,
    createdAt: readCreatedAt(metadata),
    labels: metadata.textMap('labels'),
    annotations: metadata.textMap('annotations'),
    hosts: readHosts(spec),
    addresses: readAddresses(spec),
    ports: readPorts(spec, limits),
    location: spec.choice('location', LOCATIONS, 'MESH_EXTERNAL'),
    resolution: spec.choice('resolution', RESOLUTIONS, 'NONE'),
    endpoints: readEndpoints(spec, limits),
    selector: spec.has('workloadSelector') ? spec.object('workloadSelector').textMap('labels') : null,
    visibility: readVisibility(spec.texts('exportTo'), namespace, (effect) =>
      limits.add(spec, 'exportTo', effect),
    ),
    subjectAltNames: spec.texts('subjectAltNames'),
    automatic: readAutomatic(fields.object('status')),
    limits: limits.list,
  };
  checkTogether(spec, entry, limits);
  return entry;
}

function readHosts(spec: Fields): readonly string[] {
  if (!spec.has('hosts')) spec.wrong('hosts', 'is required');
  const hosts = spec.texts('hosts').map((text) => {
    const host = text.toLowerCase().replace(/\.$/, '');
    if (!isHostname(host.startsWith('*.') ? host.slice(2) : host))
      spec.wrong('hosts', `must hold DNS names, or *.name, not '${text}'`);
    return host;
  });
  return [...new Set(hosts)];
}

function readAddresses(spec: Fields): readonly EntryAddress[] {
  return spec.texts('addresses').flatMap((text, index) => {
    const [base = '', length] = text.split('/');
    const address = tryCanonicalAddress(base);
    if (address !== null && isAutomatic(address))
      spec.wrong('addresses', `[${index}] is of a range whose addresses are given automatically`);
    const bits = address?.includes(':') ? 128 : 32;
    const prefixLength = length === undefined ? bits : Number(length);
    if (address !== null && /^\d{1,3}$/.test(length ?? '0') && prefixLength <= bits && prefixLength > 0)
      return [{ address, prefixLength: prefixLength === bits ? null : prefixLength }];
    spec.wrong('addresses', `[${index}] must be an IP address or a CIDR of at least one bit, not '${text}'`);
    return [];
  });
}

/** What others may have written there is no fault of the entry. */
function readAutomatic(status: Fields): ServiceEntry['automatic'] {
  return status.objects('addresses').flatMap((fields) => {
    const host = fields.text('host').toLowerCase();
    const address = tryCanonicalAddress(fields.text('value'));
    return host !== '' && address !== null && isAutomatic(address) ? [{ host, address }] : [];
  });
}

/** 240.240.0.0/16 and 2001:2::/48, where entries without addresses get theirs (mesh-apis.md 2.5). */
function isAutomatic(address: string): boolean {
  const groups = address.split(':');
  return (
    address.startsWith('240.240.') ||
    (groups[0] === '2001' && groups[1] === '2' && (groups[2] || '0') === '0')
  );
}

const PROTOCOLS = [
  'TCP',
  'TLS',
  'HTTP',
  'HTTPS',
  'HTTP2',
  'GRPC',
  'GRPC-WEB',
  'MONGO',
  'MYSQL',
  'REDIS',
  'UDP',
];

function readPorts(spec: Fields, limits: Limits): readonly ServiceEntryPort[] {
  const seen = new Set<number>();
  return spec.objects('ports').flatMap((fields) => {
    limits.check(fields, ['number', 'name', 'protocol', 'targetPort']);
    if (!fields.has('number')) fields.wrong('number', 'is required');
    const port = fields.port('number');
    if (seen.has(port)) fields.wrong('number', `${port} is there twice`);
    seen.add(port);
    const protocol = (fields.text('protocol') || 'TCP').toUpperCase();
    if (!PROTOCOLS.includes(protocol))
      fields.wrong('protocol', `must be one of ${PROTOCOLS.join(', ')}, not '${fields.text('protocol')}'`);
    if (protocol === 'UDP') {
      limits.add(fields, 'protocol', { reason: 'the mesh carries TCP', effect: 'the port is left out' });
      return [];
    }
    const targetPort = fields.port('targetPort') || port;
    return [{ name: fields.text('name'), port, targetPort, protocol }];
  });
}

function readEndpoints(spec: Fields, limits: Limits): readonly EndpointFields[] {
  return spec
    .objects('endpoints')
    .map((fields) => {
      limits.check(fields, ENDPOINT_FIELDS);
      return readEndpoint(fields, limits);
    })
    .filter(({ address, hostname, network }) => address !== '' || hostname !== '' || network !== '');
}

/** What the fields of one entry demand of each other. */
function checkTogether(spec: Fields, entry: ServiceEntry, limits: Limits): void {
  const { resolution, endpoints, ports } = entry;
  const hasCidr = entry.addresses.some(({ prefixLength }) => prefixLength !== null);
  const isWildcard = entry.hosts.some((host) => host.startsWith('*.'));
  const resolves = resolution !== 'NONE' && resolution !== 'STATIC';
  if (entry.selector !== null && spec.has('endpoints'))
    spec.wrong('workloadSelector', 'is given beside endpoints: only one of them can be');
  if (resolution === 'NONE' && (endpoints.length > 0 || entry.selector !== null))
    spec.wrong('resolution', 'is NONE, which goes where the client wants and has no endpoints');
  if (resolution === 'DYNAMIC_DNS' && endpoints.length > 0)
    spec.wrong('endpoints', 'cannot be given with resolution DYNAMIC_DNS');
  if (resolves && hasCidr) spec.wrong('addresses', `cannot hold a CIDR with resolution ${resolution}`);
  if (resolution === 'STATIC' && endpoints.some(({ hostname }) => hostname !== ''))
    spec.wrong('endpoints', 'must have IP addresses with resolution STATIC');
  if (resolves && isWildcard && endpoints.length === 0) {
    if (resolution === 'DYNAMIC_DNS') limits.add(spec, 'hosts', WILDCARD);
    else spec.wrong('hosts', `a wildcard cannot be resolved: resolution ${resolution} needs endpoints`);
  }
  for (const endpoint of endpoints)
    for (const name of Object.keys(endpoint.ports))
      if (!ports.some((port) => port.name === name))
        spec.wrong('endpoints', `names a port '${name}' that the entry does not have`);
}

const WILDCARD = {
  reason: 'which name a client means is seen at L7 only',
  effect: 'names below it are resolved by the client itself and not routed: it needs a waypoint',
};

/** exportTo of a Service, ServiceEntry or DestinationRule. Single other namespaces cannot be told to agents, so that all see it. */
export function readVisibility(
  exportTo: readonly string[],
  namespace: string,
  report: (what: { reason: string; effect: string }) => void,
): Visibility {
  if (exportTo.length === 0 || exportTo.includes('*')) return 'public';
  if (exportTo.every((entry) => entry === '~')) return 'none';
  if (exportTo.every((entry) => entry === '.' || entry === namespace || entry === '~')) return 'namespace';
  report({ reason: 'names single namespaces', effect: 'every namespace sees it' });
  return 'public';
}

const EXPORT_TO = 'networking.istio.io/exportTo';

/** Annotation exportTo of a Service, a comma-separated list. */
export function visibilityOfService(service: Pick<Service, 'namespace' | 'annotations'>): {
  readonly visibility: Visibility;
  readonly limits: readonly Limitation[];
} {
  const limits: Limitation[] = [];
  const exportTo = (service.annotations[EXPORT_TO] ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
  const visibility = readVisibility(exportTo, service.namespace, (what) =>
    limits.push({ field: `metadata.annotations["${EXPORT_TO}"]`, ...what }),
  );
  return { visibility, limits };
}

/** A DNS name without its final dot, in lower case; one label is enough. */
export function isHostname(text: string): boolean {
  return (
    text.length <= 253 &&
    text.split('.').every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label))
  );
}
