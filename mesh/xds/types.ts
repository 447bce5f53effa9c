/** How to reach a controller (xDS and certificates share it). */
export interface ControllerOptions {
  /** `host:port` or `[v6]:port`, usually port 15012. */
  readonly address: string;
  /** PEM, read anew for every connection. */
  readonly rootCertificateFile: string;
  /** Further roots (PEM) that the controller may be known by, asked for at every connection: learnt from it, while the file may not have them yet. @default none */
  readonly learntRoots?: () => string;
  /** Bearer token, read anew for every call. */
  readonly tokenFile: string;
  /** Name that the server's certificate must show, where it is not the host of `address`. @default null */
  readonly verifyName?: string | null;
  /** Sent as `clusterid`. */
  readonly clusterId: string;
  /** Further metadata of every call, lower-case names. @default {} */
  readonly headers?: Readonly<Record<string, string>>;
}

export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue };

/** Who we are, as `Node` of the first request of each type (sheet 3.1). */
export interface NodeOptions {
  /** @default '1.1.1.1' */
  readonly instanceIp?: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly nodeName: string;
  /** Further metadata: every ISTIO_META_X as X, every ISTIO_METAJSON_X parsed. */
  readonly metadata?: Readonly<Record<string, JsonValue>>;
}

/** Why a stream ended, in the words of istio_xds_connection_terminations_total. */
export type TerminationReason = 'ConnectionError' | 'Error' | 'Reconnect' | 'Complete';

/** What the client knows of itself, for readiness, metrics and admin. Holds no secret. */
export interface XdsState {
  readonly controller: string;
  readonly isConnected: boolean;
  /** Both types have been accepted once. */
  readonly isReady: boolean;
  /** What readiness waits for, in words; empty when ready. */
  readonly pending: readonly string[];
  readonly lastError: string | null;
  readonly terminations: Readonly<Record<TerminationReason, number>>;
  readonly types: readonly XdsTypeState[];
}

export interface XdsTypeState {
  readonly typeUrl: string;
  readonly messages: number;
  readonly messageBytes: number;
  /** Since the last message, milliseconds; null: none came yet. */
  readonly ageMs: number | null;
  /** Resources held. */
  readonly resources: number;
  /** Resources whose last version was refused, with the reason. */
  readonly rejected: ReadonlyMap<string, string>;
}
