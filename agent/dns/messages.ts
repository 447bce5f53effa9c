import type { LogLevel } from '../../mesh/log/index.js';
import type { StoreUpdate } from '../../mesh/store/index.js';
import type { CaptureHandles } from '../capture/index.js';
import type { DnsCell } from './metrics.js';

/** What crosses between the agent's main thread and its DNS thread; structured-cloneable. */

/** The part of a captured pod that matters for names. `netnsFd` is the main thread's and stays open until `released`. */
export interface DnsPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly netnsFd: number;
  readonly netnsCookie: bigint;
  /** A process of the pod, whose resolv.conf is read. */
  readonly pid: number;
  /** Those that BPF redirects to, one per family. */
  readonly addresses: readonly string[];
}

export type ToDns =
  | { readonly kind: 'store'; readonly update: StoreUpdate }
  /** Answered by `opened`. */
  | { readonly kind: 'pod'; readonly pod: DnsPod; readonly handles: CaptureHandles }
  /** Answered by `released`, when none of the pod's descriptors is in use. */
  | { readonly kind: 'release'; readonly uid: string }
  | { readonly kind: 'log-level'; readonly level: LogLevel };

export type FromDns =
  /** `failure` empty: the pod's listeners are open. */
  | { readonly kind: 'opened'; readonly uid: string; readonly failure: string }
  | { readonly kind: 'released'; readonly uid: string }
  | { readonly kind: 'report'; readonly report: DnsReport };

/** Sent every second. */
export interface DnsReport {
  readonly cells: readonly DnsCell[];
  readonly inFlight: number;
  readonly pods: readonly DnsPodReport[];
}

export interface DnsPodReport {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** Of its resolv.conf, in order. */
  readonly servers: readonly string[];
  readonly cached: number;
}

/** The thread's start-up data. */
export interface DnsWorkerData {
  readonly network: string;
  readonly clusterDomain: string;
  readonly logLevel: LogLevel;
}
