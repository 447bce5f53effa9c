import type { Fields } from '../../mesh/manifests/index.js';
import { Limits } from './limits.js';
import type { EndpointSlice, SliceEndpoint } from './service-types.js';

const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const;

/** discovery.k8s.io/v1: the kind has no spec. */
export function decodeEndpointSlice(fields: Fields, namespace: string, name: string): EndpointSlice {
  const limits = new Limits();
  if (!fields.has('addressType')) fields.wrong('addressType', 'is required');
  const type = fields.choice('addressType', ['IPv4', 'IPv6', 'FQDN'], 'IPv4');
  if (type === 'FQDN')
    limits.add(fields, 'addressType', { reason: 'Kubernetes gives FQDN no meaning', effect: 'no endpoints' });
  return {
    kind: 'EndpointSlice',
    namespace,
    name,
    serviceName: fields.object('metadata').textMap('labels')['kubernetes.io/service-name'] ?? '',
    ports: fields.objects('ports').flatMap((port) => {
      const number = port.port('port');
      if (number === 0) limits.add(port, 'port', { reason: 'is missing', effect: 'the port is left out' });
      const protocol = port.choice('protocol', PROTOCOLS, 'TCP');
      return number === 0 ? [] : [{ name: port.text('name'), port: number, protocol }];
    }),
    endpoints: type === 'FQDN' ? [] : fields.objects('endpoints').map(readEndpoint),
    limits: limits.list,
  };
}

function readEndpoint(fields: Fields): SliceEndpoint {
  const conditions = fields.object('conditions');
  if (!fields.has('addresses')) fields.wrong('addresses', 'is required');
  return {
    addresses: [...new Set(fields.addresses('addresses').filter((address) => address !== ''))],
    ready: !conditions.has('ready') || conditions.flag('ready'),
    nodeName: fields.text('nodeName'),
    zone: fields.text('zone'),
    hostname: fields.text('hostname'),
  };
}
