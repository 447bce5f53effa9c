import type { AuthorizationPolicy, Service, StoreUpdate, Workload } from './types.js';

/** Objects for tests, of any room: sound and dull unless told otherwise. */

export function workloadWith(fields: Partial<Workload> & { readonly uid: string }): Workload {
  return {
    name: fields.uid,
    namespace: 'default',
    addresses: [],
    hostname: '',
    network: '',
    tunnelProtocol: 'none',
    trustDomain: 'cluster.local',
    serviceAccount: 'default',
    node: '',
    canonicalName: '',
    canonicalRevision: '',
    workloadType: 'pod',
    workloadName: '',
    nativeTunnel: false,
    authorizationPolicies: [],
    healthy: true,
    clusterId: 'Kubernetes',
    waypoint: null,
    networkGateway: null,
    services: new Map(),
    applicationTunnel: null,
    locality: { region: '', zone: '', subzone: '' },
    hostNetwork: false,
    capacity: 1,
    ...fields,
  };
}

export function serviceWith(fields: Partial<Service> & { readonly hostname: string }): Service {
  return {
    name: fields.hostname,
    namespace: 'default',
    vips: [],
    ports: [],
    subjectAltNames: [],
    waypoint: null,
    weightedWaypoints: [],
    loadBalancing: null,
    ipFamilies: 'automatic',
    canonical: false,
    visibility: 'public',
    ...fields,
  };
}

export function policyWith(
  fields: Partial<AuthorizationPolicy> & { readonly key: string },
): AuthorizationPolicy {
  return {
    namespace: fields.key.split('/')[0]!,
    scope: 'namespace',
    action: 'deny',
    dryRun: false,
    groups: [],
    defect: null,
    ...fields,
  };
}

export function updateWith(fields: Partial<StoreUpdate>): StoreUpdate {
  return {
    snapshot: false,
    workloads: [],
    services: [],
    policies: [],
    policiesAreComplete: true,
    removed: [],
    removedPolicies: [],
    ...fields,
  };
}
