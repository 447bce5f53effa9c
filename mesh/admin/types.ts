import type { SocketAddress } from '../common/address.js';

/** Where the servers listen; port 0 picks one (tests). */
export interface AdminOptions {
  /** Prometheus. @default 0.0.0.0:15020 */
  readonly metrics?: SocketAddress;
  /** Kubelet. @default 0.0.0.0:15021 */
  readonly readiness?: SocketAddress;
  /** People. No authentication, hence loopback. @default 127.0.0.1:15000 */
  readonly admin?: SocketAddress;
}

/** What the servers show. Everything is asked for at the moment of the request. */
export interface AdminDeps {
  /** Metrics in the format that `accept` prefers. */
  readonly metrics: (accept: string | undefined) => MetricsText | Promise<MetricsText>;
  /** What readiness waits for, in words; empty: ready. */
  readonly pending: () => readonly string[];
  /** Sections of /config_dump by name. Keys, tokens and the like do not belong here; what looks like one is left out all the same. */
  readonly config: Readonly<Record<string, () => unknown | Promise<unknown>>>;
  /** Open connections, for /connections. */
  readonly connections: () => readonly unknown[] | Promise<readonly unknown[]>;
  readonly logLevel: {
    /** In ascending order of noise. */
    readonly levels: readonly string[];
    get(): string;
    set(level: string): void;
  };
  /** What POST does, by path (without its first slash). What one throws is answered with 400. */
  readonly commands?: Readonly<Record<string, AdminCommand>>;
  /** A request that could not be answered. */
  readonly onError: (error: unknown, what: string) => void;
}

export interface AdminCommand {
  /** Its query, for the index: `worker=N`. */
  readonly usage: string;
  /** Resolves to the answer when it is done. */
  run(query: URLSearchParams): string | Promise<string>;
}

export interface MetricsText {
  readonly contentType: string;
  readonly body: string;
}
