import type { ConnectionInfo, Party, ResponseFlag } from './types.js';

/** Istio's TCP labels, in the order of the sheet (7.1). */
export const TCP_LABEL_NAMES = [
  'reporter',
  'source_workload',
  'source_canonical_service',
  'source_canonical_revision',
  'source_workload_namespace',
  'source_principal',
  'source_app',
  'source_version',
  'source_cluster',
  'destination_service',
  'destination_service_namespace',
  'destination_service_name',
  'destination_workload',
  'destination_canonical_service',
  'destination_canonical_revision',
  'destination_workload_namespace',
  'destination_principal',
  'destination_app',
  'destination_version',
  'destination_cluster',
  'request_protocol',
  'response_flags',
  'connection_security_policy',
  'source_region',
  'source_zone',
  'destination_region',
  'destination_zone',
] as const;

const UNKNOWN = 'unknown';

/** What the labels say of one side. */
interface PartyLabels {
  readonly workload: string;
  readonly canonicalService: string;
  readonly canonicalRevision: string;
  readonly namespace: string;
  readonly principal: string;
  readonly cluster: string;
  readonly region: string;
  readonly zone: string;
}

/** Label values of a connection, in the order of `TCP_LABEL_NAMES`; what is missing is `unknown`. */
export function tcpLabelsOf(info: ConnectionInfo, flag: ResponseFlag): readonly string[] {
  const source = partyLabelsOf(info.source);
  const destination = partyLabelsOf(info.destination);
  return [
    info.reporter,
    source.workload,
    source.canonicalService,
    source.canonicalRevision,
    source.namespace,
    source.principal,
    source.canonicalService,
    source.canonicalRevision,
    source.cluster,
    known(info.service?.hostname),
    known(info.service?.namespace),
    known(info.service?.name),
    destination.workload,
    destination.canonicalService,
    destination.canonicalRevision,
    destination.namespace,
    destination.principal,
    destination.canonicalService,
    destination.canonicalRevision,
    destination.cluster,
    'tcp',
    flag,
    info.mutualTls ? 'mutual_tls' : UNKNOWN,
    source.region,
    source.zone,
    destination.region,
    destination.zone,
  ];
}

/** The label set that takes what no longer fits below `maxCells`. */
export function overflowLabels(reporter: ConnectionInfo['reporter'], flag: ResponseFlag): readonly string[] {
  const nobody: Party = { workload: null, baggage: null, identity: null };
  const nowhere = { address: '', port: 0 };
  return tcpLabelsOf(
    {
      reporter,
      source: nobody,
      destination: nobody,
      service: null,
      mutualTls: false,
      sourceAddress: nowhere,
      destinationAddress: nowhere,
      hboneAddress: null,
    },
    flag,
  );
}

function partyLabelsOf(party: Party): PartyLabels {
  const { workload } = party;
  if (workload === null) return claimedLabelsOf(party);
  return {
    workload: known(workload.workloadName),
    canonicalService: known(workload.canonicalName),
    canonicalRevision: known(workload.canonicalRevision),
    namespace: known(workload.namespace),
    principal: known(party.identity),
    cluster: known(workload.clusterId),
    region: known(workload.locality.region),
    zone: known(workload.locality.zone),
  };
}

function claimedLabelsOf(party: Party): PartyLabels {
  const baggage = party.baggage ?? {};
  return {
    workload: known(baggage.workloadName),
    canonicalService: known(baggage.serviceName),
    canonicalRevision: known(baggage.serviceVersion),
    namespace: known(baggage.namespace),
    principal: known(party.identity),
    cluster: known(baggage.clusterName),
    region: known(baggage.region),
    zone: known(baggage.zone),
  };
}

function known(value: string | null | undefined): string {
  return value === null || value === undefined || value === '' ? UNKNOWN : value;
}
