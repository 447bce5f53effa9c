import type { LocalPod } from '../../agent/pods/index.js';

/** A pod in the mesh, sound and dull unless told otherwise. */
export function localPodWith(fields: Partial<LocalPod> = {}): LocalPod {
  return {
    uid: 'u',
    name: 'one',
    namespace: 'shop',
    serviceAccount: 'default',
    addresses: ['10.0.0.1', 'fd00::1'],
    hostNetwork: false,
    exclusions: { outboundPorts: [], outboundRanges: [], inboundPorts: [] },
    dnsCapture: true,
    isEastWestGateway: false,
    fault: '',
    enrolled: true,
    outside: '',
    ...fields,
  };
}
