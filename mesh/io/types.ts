import type { SocketAddress } from '../common/address.js';

/**
 * What the rest of the mesh sees of the engine (design.md, section 7). All of it is synchronous and belongs to
 * one worker thread; nothing here allocates per chunk. The classes live beside this file.
 */

/** `Connection.read`: nothing there now; `onReadable` comes again. */
export const AGAIN = -11;
/** `Connection.read`: the peer ended its direction cleanly (TCP FIN, TLS close_notify). A TLS stream cut without close_notify is an error, not this. */
export const EOF = 0;

export type IoErrorCode =
  | 'CONNECT_FAILED' // the TCP connect was refused, unreachable, ...; data.errno names it
  | 'CONNECT_TIMEOUT'
  | 'HANDSHAKE_FAILED' // TLS alert, bad certificate, no common protocol; message has OpenSSL's reason
  | 'HANDSHAKE_TIMEOUT'
  | 'RESET' // RST, TLS alert or broken record on an established connection
  | 'WRITE_OVERFLOW' // the owner wrote on past `maxPendingBytes`
  | 'HANDLER_FAILED' // an exception left a callback of its handler: a bug on our side
  | 'NO_RESOURCES'; // EMFILE, ENFILE, ENOMEM, ENOBUFS

/** Space lent by the engine for building frames in place. Write into `bytes` from `end` on, then move `end`. Valid until the current callback returns. */
export interface Slab {
  readonly bytes: Buffer;
  end: number;
}

/** The writing half of a connection, as codecs need it (the structural twin of mesh/http2's `Output`). */
export interface ByteOutput {
  /**
   * A slab with at least `bytes` free after `end`. What was already in it stays in front. The slab is sealed and sent once, at
   * the end of the turn (or now, when it would overflow). `bytes` is at most `maxReserveBytes`.
   */
  reserve(bytes: number): Slab;
  /** True while bytes that the kernel did not take are waiting: produce no more data, only control frames. `onDrained` tells the end. */
  readonly blocked: boolean;
}

/** One TCP or TLS connection, owned by whoever holds it. All methods are no-ops (read: EOF) once it is closed. */
export interface Connection extends ByteOutput {
  handler: ConnectionHandler;
  readonly isOpen: boolean;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  /** Bytes read into `buffer`, or `EOF`, `AGAIN`, or another negative value when it failed (`onClosed` follows with the cause). */
  read(buffer: Buffer, offset: number, length: number): number;
  /**
   * Hands over all of `buffer[start, end)`, in order with the slab; what the kernel does not take now is copied to native memory and sent
   * when it can be. Returns the bytes now pending there (0: all gone).
   */
  write(buffer: Buffer, start: number, end: number): number;
  /** Bytes waiting in native memory. */
  readonly pendingBytes: number;
  /** Sends the slab now instead of at the end of the turn. */
  flush(): void;
  /** Stops and restarts `onReadable` (leaves epoll: level-triggered). Errors and resets are still reported. */
  pauseReading(): void;
  resumeReading(): void;
  /** Half-close: FIN (TLS: close_notify, FIN) once all pending bytes are out. Reading goes on. */
  shutdownWrite(): void;
  /** Ends it at once with RST; the handler hears nothing more. */
  reset(): void;
  /** Sends what is pending, then FIN; RST if no byte of it leaves for the linger time. The handler hears nothing more. */
  close(): void;
  /** TLS only, after the handshake: the peer's leaf certificate as DER, or null. */
  peerCertificate(): Buffer | null;
  /** The same: the chain as it was verified, leaf first and root last, DER one behind the other; null also above 64 KiB. */
  peerChain(): Buffer | null;
}

/** Called by the reactor; an exception that leaves a callback resets this connection only, is counted and logged, and `onClosed` follows, so that its owner can let go of the rest. */
export interface ConnectionHandler {
  /** TCP connect (and TLS handshake, where there is one) done. Not called for accepted plain TCP. */
  onConnected(connection: Connection): void;
  /** Bytes or an end are there. Read at least once. Level-triggered: unread bytes bring it again. */
  onReadable(connection: Connection): void;
  /** `pendingBytes` has fallen to 0 after having been above. */
  onDrained(connection: Connection): void;
  /** It is gone by the peer's or the network's doing (RST at any stage, failed dial or handshake, deadline) or by an exception of ours. At most once; never after the owner's `reset()` or `close()`; never for a clean EOF. */
  onClosed(connection: Connection, error: Error & { code: IoErrorCode }): void;
}

/** Certificate chain, key and trust bundle in DER, for one SSL context (mesh/tls makes it). */
export interface TlsMaterial {
  /** Leaf first, then intermediates; the root is not sent. */
  readonly certificateChain: readonly Buffer[];
  /** PKCS#8. */
  readonly privateKey: Buffer;
  readonly trustBundle: readonly Buffer[];
}

/** A live SSL context of this process: a number that may cross to workers. Contexts are replaced, never changed; open connections keep theirs. */
export type TlsContextId = number;

export interface TlsOptions {
  readonly context: TlsContextId;
  /** TCP connect (client) + handshake must be done within this. */
  readonly handshakeTimeoutMs: number;
}

export interface ConnectOptions {
  readonly to: SocketAddress;
  /** Open the socket inside this network namespace (a descriptor that main owns); absent: the thread's own. */
  readonly netnsFd?: number;
  /** Local address; the port is chosen at connect (IP_BIND_ADDRESS_NO_PORT). */
  readonly fromAddress?: string;
  /**
   * Socket storage to set before connect, a `struct caller`: how the caller's address reaches BPF (design.md 3, "Dialling the application").
   * A dial whose caller BPF could not record fails (NO_RESOURCES, ENOBUFS).
   */
  readonly socketStorage?: { readonly mapFd: number; readonly value: Buffer };
  readonly connectTimeoutMs: number;
  readonly tls?: TlsOptions;
}

/** Two connections of this process that are each other's peer. */
export interface ConnectionPair {
  /** What `secure` sends comes out here in TLS records, to go through a tunnel; `onConnected` is never called for it. */
  readonly wire: Connection;
  /** A TLS client; `onConnected` once its peer, beyond the wire, has done its handshake. */
  readonly secure: Connection;
}

export interface ListenOptions {
  /** A listening socket that the main thread owns and closes; the reactor only accepts from it. */
  readonly fd: number;
  /** Handshake as TLS server (client certificate demanded) before the connection is handed on. */
  readonly tls?: () => TlsOptions | null;
}

export interface Listener {
  /** Stops accepting; leaves the descriptor open. */
  stop(): void;
}

export interface AcceptHandler {
  /** A new connection; returns its handler. For TLS, called before the handshake: `onConnected` tells its end. Null: reset it. */
  onAccepted(connection: Connection): ConnectionHandler | null;
}

export interface Timer {
  cancel(): void;
}

/** The event loop of one worker thread. */
export interface Reactor {
  /** Receive buffer shared by all connections of this worker: valid during the current callback only. */
  readonly receiveBuffer: Buffer;
  /** Monotonic milliseconds, read once per turn. */
  readonly nowMs: number;
  connect(options: ConnectOptions, handler: ConnectionHandler): Connection;
  /** TLS inside a tunnel (hbone-and-wds.md 1.7). `remote` names the peer in errors; `handler` is that of `secure`. Null: no descriptors left. */
  pair(tls: TlsOptions, remote: SocketAddress, handler: ConnectionHandler): ConnectionPair | null;
  listen(options: ListenOptions, handler: AcceptHandler): Listener;
  /** Coarse (a few ms) one-shot timer. */
  setTimer(delayMs: number, callback: () => void): Timer;
  /** Runs `callback` once at the end of this turn, before slabs are sealed and sent. */
  atEndOfTurn(callback: () => void): void;
}

/** What the engine says when something is wrong; mesh/log's Log fits. */
export interface IoLog {
  warn(data: object, message: string): void;
  error(data: object, message: string): void;
}
