import { policyWith, serviceWith, updateWith, workloadWith } from '../../mesh/store/fixtures.js';
import type { AuthorizationMatch, StoreUpdate, Workload } from '../../mesh/store/index.js';

/** A large mesh: what a controller would say of it. */
export interface ScaleOptions {
  readonly workloads: number;
  readonly services: number;
  readonly policies: number;
}

const namespaces = 100;
const namespaceOf = (index: number): string => `team-${index % namespaces}`;

export function scaleSnapshot({ workloads, services, policies }: ScaleOptions): StoreUpdate {
  return updateWith({
    snapshot: true,
    workloads: Array.from({ length: workloads }, (_, index) => scaleWorkload(index, services)),
    services: Array.from({ length: services }, (_, index) =>
      serviceWith({
        name: `service-${index}`,
        namespace: namespaceOf(index),
        hostname: scaleHost(index),
        vips: [{ network: '', address: `10.96.${index >> 8}.${index & 255}`, prefixLength: null }],
        ports: [
          { servicePort: 80, targetPort: 8080 },
          { servicePort: 443, targetPort: 8443 },
        ],
      }),
    ),
    policies: Array.from({ length: policies }, (_, index) =>
      policyWith({
        key: `${namespaceOf(index)}/policy-${index}`,
        namespace: namespaceOf(index),
        scope: 'namespace',
        groups: [Array.from({ length: 5 }, (_, rule) => [scaleMatch(index * 5 + rule)])],
      }),
    ),
  });
}

export function scaleWorkload(index: number, services: number, version = ''): Workload {
  const namespace = namespaceOf(index);
  const ports = [
    { servicePort: 80, targetPort: 8080 },
    { servicePort: 443, targetPort: 8443 },
  ];
  return workloadWith({
    uid: `Kubernetes//Pod/${namespace}/pod-${index}`,
    name: `pod-${index}`,
    namespace,
    addresses: [`10.${(index >> 16) + 1}.${(index >> 8) & 255}.${index & 255}`],
    tunnelProtocol: 'hbone',
    serviceAccount: `account-${index % services}`,
    node: `node-${index % 200}`,
    canonicalName: `app-${index % services}`,
    canonicalRevision: version,
    workloadType: 'deployment',
    workloadName: `app-${index % services}`,
    locality: { region: 'r1', zone: `z${index % 3}`, subzone: '' },
    services: new Map([[`${namespaceOf(index % services)}/${scaleHost(index % services)}`, ports]]),
  });
}

export function scaleHost(index: number): string {
  return `service-${index}.${namespaceOf(index)}.svc.cluster.local`;
}

function scaleMatch(index: number): AuthorizationMatch {
  return {
    namespaces: [],
    notNamespaces: [],
    principals: [{ kind: 'exact', value: `cluster.local/ns/${namespaceOf(index)}/sa/account-${index}` }],
    notPrincipals: [],
    sourceIps: [],
    notSourceIps: [],
    destinationIps: [],
    notDestinationIps: [],
    destinationPorts: [8080],
    notDestinationPorts: [],
    serviceAccounts: [],
    notServiceAccounts: [],
  };
}
