import type { SocketAddress } from '../common/address.js';
import type { Service, Workload } from '../store/types.js';

/** Why a connection failed, in the words of the metrics (sheet 7.1). `-` is "it did not". */
export const RESPONSE_FLAGS = [
  '-',
  'DENY',
  'CONNECT',
  'TLS_FAILURE',
  'H2_HANDSHAKE_FAILURE',
  'NETWORK_POLICY',
  'IDENTITY_ERROR',
  'CERT_REVOKED',
] as const;
export type ResponseFlag = (typeof RESPONSE_FLAGS)[number];

/** What a peer says of itself in HBONE's `baggage`; the structural twin of mesh/hbone's `Baggage`. */
export interface BaggageLabels {
  readonly clusterName?: string;
  readonly namespace?: string;
  readonly workloadName?: string;
  readonly serviceName?: string;
  readonly serviceVersion?: string;
  readonly region?: string;
  readonly zone?: string;
}

export interface Party {
  /** From the store; null where it knows nobody at that address. */
  readonly workload: Workload | null;
  /** Only read where `workload` is null. Proven by nobody: for labels, never for decisions. */
  readonly baggage: BaggageLabels | null;
  /** SPIFFE identity as its certificate shows it; null without mTLS. */
  readonly identity: string | null;
}

/** One connection as this agent sees it, known when it is opened. */
export interface ConnectionInfo {
  /** `source`: we tunnel for the client (outbound); `destination`: for the server (inbound). */
  readonly reporter: 'source' | 'destination';
  readonly source: Party;
  readonly destination: Party;
  /** The service that was addressed, as far as it is known. */
  readonly service: Pick<Service, 'name' | 'namespace' | 'hostname'> | null;
  readonly mutualTls: boolean;
  readonly sourceAddress: SocketAddress;
  /** What the TCP connection of the mesh goes to: inbound HBONE is pod:15008. */
  readonly destinationAddress: SocketAddress;
  /** Inside a tunnel: the real target. */
  readonly hboneAddress: SocketAddress | null;
  /** What policies said when it came in; absent where none is asked (outbound). The structural part of mesh/policy's `Verdict`. */
  readonly verdict?: PolicyVerdict;
}

/** Policy key `ns/name` and index of its rule; null where no single one decided. */
export interface PolicyDecision {
  readonly policy: string | null;
  readonly rule: number | null;
  readonly reason: string;
}

export interface PolicyVerdict extends PolicyDecision {
  readonly allowed: boolean;
  /** What would have denied it, were the dry-run policies enforced. */
  readonly dryRun: readonly PolicyDecision[];
}

/** Connections that one policy denied since the last batch, or would have denied. */
export interface PolicyDenials {
  /** Empty: none in particular. */
  readonly policy: string;
  readonly reason: string;
  readonly dryRun: boolean;
  readonly count: number;
}

/** What happened since the last batch to the connections of one label set, in one worker. */
export interface CellDelta {
  /** Unique within the worker's lifetime. */
  readonly id: number;
  /** Values in the order of `TCP_LABEL_NAMES`, the first time this id appears; null after. */
  readonly labels: readonly string[] | null;
  readonly opened: number;
  readonly closed: number;
  readonly failed: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/** What a worker hands to main every now and then; plain data. */
export interface TelemetryBatch {
  readonly cells: readonly CellDelta[];
  /** Ids that will not appear again. */
  readonly evicted: readonly number[];
  /** Access log lines, each ended by a line feed. */
  readonly lines: string;
  readonly policyDenials: readonly PolicyDenials[];
  /** Lines lost because main had not fetched the others. */
  readonly droppedLines: number;
}

/** One metric with its samples at this moment. */
export interface MetricFamily {
  /** Counters end in `_total`. */
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly samples: readonly MetricSample[];
}

export interface MetricSample {
  /** As `labelsText` writes them: `a="b",c="d"`, or empty. */
  readonly labels: string;
  readonly value: number;
  /** Of a histogram: `_bucket`, `_sum` or `_count`; else absent. */
  readonly suffix?: string;
}

/** Read at every scrape. Rooms keep plain numbers and show them through one of these. */
export type MetricSource = () => readonly MetricFamily[];
