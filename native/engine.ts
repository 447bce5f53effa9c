import { getSystemErrorName } from 'node:util';
import { NativeError } from './errors.js';
import { type NativeLibrary, openLibrary } from './library.js';

/** What `NativeEngine.wait` tells of a connection; bits, twins of EVENT_… in shim/engine.h. */
export const NativeEvent = { READABLE: 1, DRAINED: 2, CONNECTED: 4, FAILED: 8, ACCEPTABLE: 16 } as const;
/** The "connection" of a wake-up from another thread. */
export const WAKE_HANDLE = -1;
/** Bytes of one address as it crosses: family (4, 6, 0: none), 0, port big-endian, 16 address bytes. */
export const ADDRESS_BYTES = 20;
/** One accepted connection: handle (int32 LE), own address, peer address. */
export const ACCEPTED_BYTES = 4 + 2 * ADDRESS_BYTES;
/** Where a connection failed; twins of STAGE_… in shim/engine.h. */
export const FailureStage = { CONNECT: 1, HANDSHAKE: 2, ESTABLISHED: 3, RESOURCES: 4 } as const;

const FAILURE_BYTES = 512;
const CERTIFICATE_BYTES = 64 * 1024;
/** -ESHUTDOWN: the engine was stopped. */
const STOPPED = -108;

/** Why a connection failed: where, the errno (0: TLS) and words. */
export interface NativeFailure {
  readonly stage: number;
  readonly errno: number;
  readonly text: string;
}

interface EngineCalls {
  readonly wait: (id: number, events: Int32Array, max: number, timeoutMs: number) => number;
  readonly read: (id: number, handle: number, bytes: Buffer, offset: number, length: number) => number;
  readonly write: (id: number, handle: number, bytes: Buffer, offset: number, length: number) => number;
  readonly shutdown: (id: number, handle: number) => number;
  readonly pause: (id: number, handle: number, paused: number) => number;
  readonly close: (id: number, handle: number, reset: number) => number;
  readonly listen: (id: number, fd: number, tls: number) => number;
  readonly accept: (id: number, handle: number, context: number, out: Buffer, max: number) => number;
  readonly connect: (
    id: number,
    netnsFd: number,
    addresses: Buffer,
    mapFd: number,
    value: Buffer | null,
    valueBytes: number,
    context: number,
  ) => number;
  readonly pair: (id: number, context: number, handles: Int32Array) => number;
  readonly failure: (id: number, handle: number, out: Buffer, capacity: number) => number;
  readonly isConnecting: (id: number, handle: number) => number;
  readonly addresses: (id: number, handle: number, out: Buffer) => number;
  readonly certificate: (id: number, handle: number, out: Buffer, capacity: number) => number;
  readonly chain: (id: number, handle: number, out: Buffer, capacity: number) => number;
  readonly stats: (id: number, out: BigInt64Array) => number;
}

function bindCalls(library: NativeLibrary): EngineCalls {
  return {
    wait: library.bind('int culvert_wait(int id, int32_t *out, int max, int timeout)'),
    read: library.bind('int culvert_read(int id, int handle, uint8_t *bytes, int offset, int length)'),
    write: library.bind('int culvert_write(int id, int handle, uint8_t *bytes, int offset, int length)'),
    shutdown: library.bind('int culvert_shutdown(int id, int handle)'),
    pause: library.bind('int culvert_pause(int id, int handle, int paused)'),
    close: library.bind('int culvert_close(int id, int handle, int reset)'),
    listen: library.bind('int culvert_listen(int id, int fd, int tls)'),
    accept: library.bind('int culvert_accept(int id, int handle, int context, uint8_t *out, int max)'),
    connect: library.bind(
      'int culvert_connect(int id, int netns, uint8_t *addresses, int map, uint8_t *value, int valueBytes, int context)',
    ),
    pair: library.bind('int culvert_pair(int id, int context, int32_t *handles)'),
    failure: library.bind('int culvert_failure(int id, int handle, uint8_t *out, int capacity)'),
    isConnecting: library.bind('int culvert_is_connecting(int id, int handle)'),
    addresses: library.bind('int culvert_addresses(int id, int handle, uint8_t *out)'),
    certificate: library.bind('int culvert_peer_certificate(int id, int handle, uint8_t *out, int capacity)'),
    chain: library.bind('int culvert_peer_chain(int id, int handle, uint8_t *out, int capacity)'),
    stats: library.bind('int culvert_engine_stats(int id, int64_t *out)'),
  };
}

/**
 * The calls of one engine, for the thread that runs it. Buffers are passed as they are, pinned for the call only; every offset and length is
 * checked against its buffer before C sees it. Handles are integers that go stale harmlessly (-EBADF). Results below 0 are -errno.
 */
export class NativeEngine {
  readonly id: number;
  readonly #calls: EngineCalls;
  readonly #scratch = Buffer.alloc(FAILURE_BYTES);

  constructor(id: number, library: NativeLibrary = openLibrary()) {
    this.id = id;
    this.#calls = bindCalls(library);
  }

  /** Fills `events` with {handle, bits} pairs and returns their number; -1 once the engine was stopped. Throws on a broken engine. */
  wait(events: Int32Array, timeoutMs: number): number {
    const count = this.#calls.wait(this.id, events, events.length >> 1, timeoutMs);
    if (count >= 0) return count;
    if (count === STOPPED) return -1;
    throw callFailed('epoll_wait', -count);
  }

  read(handle: number, bytes: Buffer, offset: number, length: number): number {
    if (!(offset >= 0 && length > 0 && offset + length <= bytes.length))
      throw outOfBounds(bytes, offset, length);
    return this.#calls.read(this.id, handle, bytes, offset, length);
  }

  /** All of bytes[start, end): returns the bytes that now wait in native memory, or -errno. */
  write(handle: number, bytes: Buffer, start: number, end: number): number {
    if (!(start >= 0 && start <= end && end <= bytes.length)) throw outOfBounds(bytes, start, end - start);
    return this.#calls.write(this.id, handle, bytes, start, end - start);
  }

  shutdown(handle: number): number {
    return this.#calls.shutdown(this.id, handle);
  }

  pause(handle: number, paused: boolean): number {
    return this.#calls.pause(this.id, handle, paused ? 1 : 0);
  }

  close(handle: number, reset: boolean): number {
    return this.#calls.close(this.id, handle, reset ? 1 : 0);
  }

  /** Accepts from a listening socket of somebody else's; with `tls` false its connections reset if this process dies. */
  listen(fd: number, tls: boolean): number {
    return this.#calls.listen(this.id, fd, tls ? 1 : 0);
  }

  /** Accepts as many as `out` has room for (ACCEPTED_BYTES each). */
  accept(handle: number, context: number, out: Buffer): number {
    return this.#calls.accept(this.id, handle, context, out, Math.floor(out.length / ACCEPTED_BYTES));
  }

  /**
   * `addresses`: to, from; `netnsFd` -1: here; `storage`: what the sk_storage map is to hold for the socket; `context` 0: no TLS. Returns a handle or
   * -errno, and in addresses[1] 1 if it is connected already: `wait` will then not say so.
   */
  connect(
    netnsFd: number,
    addresses: Buffer,
    storage: { readonly mapFd: number; readonly value: Buffer } | undefined,
    context: number,
  ): number {
    if (addresses.length < 2 * ADDRESS_BYTES) throw outOfBounds(addresses, 0, 2 * ADDRESS_BYTES);
    const value = storage?.value ?? null;
    const mapFd = storage?.mapFd ?? -1;
    return this.#calls.connect(this.id, netnsFd, addresses, mapFd, value, value?.length ?? 0, context);
  }

  /** A plain connection and a TLS client whose wire it is: `handles` gets both. 0 or -errno. */
  pair(context: number, handles: Int32Array): number {
    if (handles.length < 2) throw new RangeError('two handles need two places');
    return this.#calls.pair(this.id, context, handles);
  }

  failure(handle: number): NativeFailure {
    const out = this.#scratch;
    const length = this.#calls.failure(this.id, handle, out, out.length);
    if (length < 0) return { stage: FailureStage.ESTABLISHED, errno: -length, text: errnoName(-length) };
    return { stage: out[0]!, errno: out.readInt32LE(1), text: out.toString('utf8', 5, length) };
  }

  /** The TCP connect has not ended yet. */
  isConnecting(handle: number): boolean {
    return this.#calls.isConnecting(this.id, handle) === 1;
  }

  /** Own and peer address into `out`. */
  addresses(handle: number, out: Buffer): number {
    if (out.length < 2 * ADDRESS_BYTES) throw outOfBounds(out, 0, 2 * ADDRESS_BYTES);
    return this.#calls.addresses(this.id, handle, out);
  }

  /** DER of the peer's leaf certificate, or null. */
  peerCertificate(handle: number): Buffer | null {
    const out = Buffer.allocUnsafe(CERTIFICATE_BYTES);
    const length = this.#calls.certificate(this.id, handle, out, out.length);
    return length > 0 ? Buffer.from(out.subarray(0, length)) : null;
  }

  /** The peer's verified chain, leaf first and root last, DER one behind the other; null without one, or where it is longer than 64 KiB. */
  peerChain(handle: number): Buffer | null {
    const out = Buffer.allocUnsafe(CERTIFICATE_BYTES);
    const length = this.#calls.chain(this.id, handle, out, out.length);
    return length > 0 ? Buffer.from(out.subarray(0, length)) : null;
  }

  stats(): { readonly connections: number; readonly pendingBytes: number } {
    const out = new BigInt64Array(2);
    this.#calls.stats(this.id, out);
    return { connections: Number(out[0]), pendingBytes: Number(out[1]) };
  }
}

/** What the main thread does with engines: it makes, wakes, stops and destroys them. */
export class NativeEngines {
  readonly #create: (lingerMs: number) => number;
  readonly #wake: (id: number, stop: number) => number;
  readonly #destroy: (id: number) => number;

  constructor(library: NativeLibrary = openLibrary()) {
    this.#create = library.bind('int culvert_engine_create(int linger)');
    this.#wake = library.bind('int culvert_engine_wake(int id, int stop)');
    this.#destroy = library.bind('int culvert_engine_destroy(int id)');
  }

  /** Returns the engine's id. `lingerMs`: how long a closed connection may take to send what is pending and see its peer's end. */
  create(lingerMs: number): number {
    const id = this.#create(lingerMs);
    if (id < 0) throw callFailed('engine_create', -id);
    return id;
  }

  /** Makes the engine's thread return from `wait`. */
  wake(id: number): void {
    this.#wake(id, 0);
  }

  /** As `wake`, and for good: every later `wait` returns -1. */
  stop(id: number): void {
    this.#wake(id, 1);
  }

  /** Resets every connection and frees everything; only once no thread uses the engine. Returns the number of connections. */
  destroy(id: number): number {
    return Math.max(0, this.#destroy(id));
  }
}

/** `ECONNREFUSED` for 111. */
export function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `errno ${errno}`;
  }
}

function callFailed(operation: string, errno: number): NativeError {
  return new NativeError('CALL_FAILED', `${operation}: ${errnoName(errno)}`, {
    operation,
    errno: errnoName(errno),
  });
}

function outOfBounds(bytes: Buffer, offset: number, length: number): NativeError {
  return new NativeError(
    'OUT_OF_BOUNDS',
    `[${offset}, +${length}) is outside of a buffer of ${bytes.length} bytes`,
  );
}
