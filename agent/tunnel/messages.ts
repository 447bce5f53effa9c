import type { LogLevel } from '../../mesh/log/index.js';
import type { OutlierDetection, StoreUpdate } from '../../mesh/store/index.js';
import type { TelemetryBatch } from '../../mesh/telemetry/index.js';
import type { CaptureHandles } from '../capture/index.js';
import type { HostnameAnswer } from '../routing/index.js';

/** What crosses between the agent's main thread and its workers; structured-cloneable. */

/** The part of a captured pod that one worker needs. Descriptors are the process's and owned by the main thread. */
export interface WorkerPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** As of its `LocalPod`. */
  readonly isEastWestGateway: boolean;
  readonly netnsFd: number;
  readonly netnsCookie: bigint;
  /** Listening sockets; more than one of a kind where an agent with more workers has handed its own over. */
  readonly outboundFds: readonly number[];
  readonly inboundFds: readonly number[];
  readonly hboneFds: readonly number[];
}

export type ToWorker =
  | { readonly kind: 'store'; readonly update: StoreUpdate }
  /** One of several that are put in force together, with the last. None comes between them, of this kind or `store`. */
  | {
      readonly kind: 'store-part';
      readonly part: StoreUpdate;
      readonly isFirst: boolean;
      readonly isLast: boolean;
    }
  /** Context null: the identity is gone or has expired. */
  | { readonly kind: 'certificate'; readonly identity: string; readonly context: number | null }
  /** `revocationKey`s: peers with one of them are not talked to, and what is open with them is ended. */
  | { readonly kind: 'revoked'; readonly keys: ReadonlySet<string> }
  | { readonly kind: 'pods'; readonly pods: readonly WorkerPod[]; readonly handles: CaptureHandles }
  /** Answered by `released` once nothing of the pod's descriptors is used for new connections any more. */
  | { readonly kind: 'release'; readonly uid: string; readonly reason: 'unenrolled' | 'deleted' }
  /** Stop accepting (answered by `draining`), GOAWAY; what is still open after the deadline is reset. Answered by `drained`. */
  | { readonly kind: 'drain'; readonly deadlineMs: number }
  /** Answered by `report`, which has the rows of connections only where they are asked for. */
  | { readonly kind: 'report'; readonly request: number; readonly withConnections: boolean }
  /** Answers `hostname-wanted`. */
  | { readonly kind: 'hostname'; readonly answer: HostnameAnswer }
  /** The last `telemetry` was taken: until then no other is sent, so that a main thread that stands still is not buried. */
  | { readonly kind: 'telemetry-taken' }
  | { readonly kind: 'log-level'; readonly level: LogLevel };

export type FromWorker =
  | { readonly kind: 'released'; readonly uid: string }
  /** No listener is in use any more. */
  | { readonly kind: 'draining' }
  /** Connections that the drain has ended, so far: by FIN, by RST. */
  | { readonly kind: 'drain-count'; readonly ended: number; readonly reset: number }
  | { readonly kind: 'drained' }
  | { readonly kind: 'report'; readonly request: number; readonly report: WorkerReport }
  /** A live connection needs a certificate for this identity: fetch it before others. */
  | { readonly kind: 'identity-wanted'; readonly identity: string }
  /** A connection needs an endpoint that is known by this hostname; answered by `hostname`. */
  | { readonly kind: 'hostname-wanted'; readonly hostname: string }
  /** What was counted and logged since the last one. */
  | { readonly kind: 'telemetry'; readonly batch: TelemetryBatch };

/** Counters and state of one worker, for metrics and admin. */
export interface WorkerReport {
  /** The latest that a timer ran since the last report, ms: for so long the worker did something else. */
  readonly lagMs: number;
  readonly connections: readonly ConnectionSummary[];
  readonly engine: Readonly<Record<string, number>>;
  readonly hbone: Readonly<Record<string, number>>;
  readonly tunnel: Readonly<Record<string, number>>;
}

export interface ConnectionSummary {
  readonly direction: 'inbound' | 'outbound';
  readonly source: string;
  readonly destination: string;
  readonly pod: string;
  readonly via: string;
  readonly ageMs: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** Worker start-up data. */
export interface WorkerData {
  readonly network: string;
  readonly logLevel: LogLevel;
  readonly trustDomain: string;
  readonly trustDomainAliases: readonly string[];
  readonly accessLog: 'json' | 'text' | 'off';
  /** Of services that do not say. */
  readonly outlierDetection: OutlierDetection;
}
