/**
 * What the rest of the mesh sees of HTTP/2 (RFC 9113): sessions of either role over any byte transport. Synchronous, no promise and no
 * stream object per message; the session never reads or writes sockets, it is fed with `receive` and writes frames in place into its `Output`.
 */

import type { SessionLimits } from './session-limits.js';

/**
 * [name, value] pairs in wire order, pseudo-headers first, names in lower case; latin1, a character is an octet. The third element marks what a
 * peer sent as never-indexed and what must be forwarded so (RFC 7541 section 6.2.3).
 */
export type HeaderList = readonly (readonly [name: string, value: string, sensitive?: true])[];

/** Space to build frames in; see mesh/io's Slab. */
export interface Slab {
  readonly bytes: Buffer;
  end: number;
}

/** The transport as the session sees it; mesh/io's Connection fits. */
export interface Output {
  reserve(bytes: number): Slab;
  readonly blocked: boolean;
}

/** RFC 9113 section 7. */
export const ErrorCode = {
  NO_ERROR: 0x0,
  PROTOCOL_ERROR: 0x1,
  INTERNAL_ERROR: 0x2,
  FLOW_CONTROL_ERROR: 0x3,
  SETTINGS_TIMEOUT: 0x4,
  STREAM_CLOSED: 0x5,
  FRAME_SIZE_ERROR: 0x6,
  REFUSED_STREAM: 0x7,
  CANCEL: 0x8,
  COMPRESSION_ERROR: 0x9,
  CONNECT_ERROR: 0xa,
  ENHANCE_YOUR_CALM: 0xb,
  INADEQUATE_SECURITY: 0xc,
  HTTP_1_1_REQUIRED: 0xd,
} as const;
export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];

/** One stream. Sending methods are no-ops once it is closed or reset. */
export interface Stream {
  readonly id: number;
  /** Set by whoever uses the stream, before its first callback (server: in `onRequest`). */
  handler: StreamHandler;
  readonly session: Session;
  /** Neither side has ended or reset it. */
  readonly isOpen: boolean;
  /** Response HEADERS (server), or trailers with `endStream`. */
  sendHeaders(headers: HeaderList, endStream: boolean): void;
  /**
   * Payload bytes that may be sent now: least of both send windows and the peer's frame size; 0 while the output is blocked. `onWritable` comes when 0
   * becomes more. On a server 0, without `onWritable`, before the final response headers were sent.
   */
  sendCapacity(): number;
  /**
   * Room for the payload of one DATA frame of at most `max` bytes (≤ `sendCapacity()`), in place: write the payload at `slab.end`, then call `commitData`.
   * Nothing else of this session may be called in between; a frame not wanted is dropped by `commitData(0, false)`.
   */
  beginData(max: number): Slab;
  commitData(bytes: number, endStream: boolean): void;
  /** Copies at most `sendCapacity()` bytes of [start, end) out as DATA and returns how many; `endStream` applies if all went. */
  sendData(bytes: Buffer, start: number, end: number, endStream: boolean): number;
  /** DATA with END_STREAM and no bytes. Needs no window. */
  endStream(): void;
  /** RST_STREAM; the handler hears nothing more. */
  reset(code: ErrorCode): void;
  /** The reader is done with `bytes` that `onData` gave: opens the stream's receive window again (the connection's is returned on receipt). */
  consumed(bytes: number): void;
}

export interface StreamHandler {
  /** Response (or 1xx: `:status` tells) on a client; on either side trailers. */
  onHeaders(stream: Stream, headers: HeaderList, endStream: boolean): void;
  /** Payload [start, end) of `bytes`, valid during this call only. Return it to the window with `consumed`. */
  onData(stream: Stream, bytes: Buffer, start: number, end: number): void;
  /** The peer's END_STREAM, once, after the last byte (also for END_STREAM on HEADERS, after onHeaders). The only clean end. */
  onEnd(stream: Stream): void;
  /** RST_STREAM from the peer, a stream error found here, or the session is gone (`sessionLost`). At most once, never after own `reset`. */
  onReset(stream: Stream, code: ErrorCode, sessionLost: boolean): void;
  /** `sendCapacity()` was 0 when asked and is not any more. */
  onWritable(stream: Stream): void;
}

export interface Session {
  readonly role: 'client' | 'server';
  /** The peer acknowledged our first SETTINGS. The owner's timer destroys with SETTINGS_TIMEOUT if that takes too long (RFC 9113 6.5.3). */
  readonly settingsAcked: boolean;
  /** The peer takes extended CONNECT, `:protocol` (RFC 8441). */
  readonly peerAllowsExtendedConnect: boolean;
  /** No error, no GOAWAY sent or received, stream identifiers left. */
  readonly acceptsStreams: boolean;
  readonly openStreams: number;
  /** Streams that may be open at once by the peer's SETTINGS (client). */
  readonly peerMaxConcurrentStreams: number;
  /** Feed [start, end) as it came from the transport, in any chunking. Never throws for what a peer sends. */
  receive(bytes: Buffer, start: number, end: number): void;
  /** The transport is writable again (mesh/io `onDrained`): wakes streams that wait. */
  outputDrained(): void;
  /** The transport ended or failed: every open stream hears `onReset(…, sessionLost = true)`. */
  transportClosed(): void;
  /** Client: opens a stream with HEADERS. Throws if `acceptsStreams` is false or the peer's limit is reached. */
  request(headers: HeaderList, handler: StreamHandler, endStream: boolean): Stream;
  /** GOAWAY and no new streams; open ones go on. Server: graceful as RFC 9113 6.8 (2^31-1 first, the true id after a PING round trip). */
  goAway(code: ErrorCode): void;
  /** PING; the callback gets the round trip in ms. */
  ping(onAck: (roundTripMs: number) => void): void;
  /** GOAWAY with `code`, then every stream is lost and the handler's `onClosed` fires; the owner closes the transport after its bytes left. */
  destroy(code: ErrorCode, reason: string): void;
}

export interface SessionHandler {
  /** Server: a request arrived. Return its stream handler, or null to refuse (REFUSED_STREAM). Called again with `onHeaders` never for these headers; `onEnd` follows if `endStream`. */
  onRequest(stream: Stream, headers: HeaderList, endStream: boolean): StreamHandler | null;
  /** The peer's first SETTINGS arrived. */
  onReady(session: Session): void;
  /** The peer will accept no new streams (streams above `lastStreamId` were reset with REFUSED_STREAM semantics: safe to retry). */
  onGoAway(session: Session, code: ErrorCode, lastStreamId: number): void;
  /** The last open stream ended after GOAWAY either way: the transport may be closed. */
  onDrained(session: Session): void;
  /** The session is over by a connection error, the peer's or ours (own GOAWAY is already in the output). Close the transport. */
  onClosed(session: Session, code: ErrorCode, reason: string): void;
}

/** Units are in the names; every limit that a peer can run into costs the peer its connection (ENHANCE_YOUR_CALM), never our memory. */
export interface SessionOptions {
  readonly role: 'client' | 'server';
  /** Window of a new stream (SETTINGS_INITIAL_WINDOW_SIZE): 65,535 by default. */
  readonly initialStreamWindowBytes?: number;
  /** A stream whose reader keeps up grows to this, while all granted windows fit `connectionWindowBytes`. Default 4 MiB. */
  readonly maxStreamWindowBytes?: number;
  /** Default 16 MiB. */
  readonly connectionWindowBytes?: number;
  /** SETTINGS_MAX_FRAME_SIZE that we accept. Default 1 MiB (hbone-and-wds.md 1.5). */
  readonly maxFrameBytes?: number;
  /** SETTINGS_MAX_CONCURRENT_STREAMS that we allow the peer to open. Default 200. */
  readonly maxConcurrentStreams?: number;
  /** SETTINGS_MAX_HEADER_LIST_SIZE. Default 64 KiB server, 16 KiB client. */
  readonly maxHeaderListBytes?: number;
  readonly headerTableBytes?: number;
  /** The most DATA payload we put into one frame, whatever the peer accepts. Default 64 KiB. */
  readonly maxSendFrameBytes?: number;
  /** Server: announce extended CONNECT (RFC 8441). Default false. */
  readonly allowExtendedConnect?: boolean;
  /** Flood limits; see session-limits.ts for the whole list and defaults. */
  readonly limits?: Partial<SessionLimits>;
}

export interface SessionDeps {
  readonly output: Output;
  readonly handler: SessionHandler;
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
}
