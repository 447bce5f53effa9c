import { performance } from 'node:perf_hooks';
import {
  ACCEPTED_BYTES,
  ADDRESS_BYTES,
  errnoName,
  NativeEngine,
  NativeEngines,
  NativeEvent,
  WAKE_HANDLE,
} from '../../native/index.js';
import type { SocketAddress } from '../common/address.js';
import { messageOf } from '../common/errors.js';
import { addressesAt, writeAddress } from './address-bytes.js';
import { type ConnectionHome, EngineConnection } from './connection.js';
import { newReactorCounters } from './counters.js';
import { connectError, IoError, limitError } from './errors.js';
import { EngineListener, type ListenerHome, NOBODY } from './listener.js';
import { SlabPool } from './slab-pool.js';
import { TimerWheel } from './timer-wheel.js';
import type {
  AcceptHandler,
  Connection,
  ConnectionHandler,
  ConnectionPair,
  ConnectOptions,
  IoLog,
  Listener,
  ListenOptions,
  Reactor,
  Timer,
  TlsOptions,
} from './types.js';

/** The loop wakes at least this often, so that a thread that is told to end (worker.terminate) does so even if nobody wakes it. */
const MAX_SLEEP_MS = 500;
const EVENTS_PER_TURN = 256;
/** Every listener backs off many times a second for as long as descriptors are short: once a second is said. */
const BACK_OFF_LOG_MS = 1000;

export interface ReactorOptions {
  /** Engine made by the main thread (NativeEngines.create); absent: the reactor makes and owns one. */
  readonly engineId?: number;
  /** Size of `receiveBuffer`. Default 256 KiB. */
  readonly receiveBytes?: number;
  /** A connection with more bytes than this waiting in native memory is given up (WRITE_OVERFLOW). Default 16 MiB. */
  readonly maxPendingBytes?: number;
  /** Connections accepted per listener and turn. Default 32. */
  readonly acceptsPerTurn?: number;
  /** TLS handshakes under way per listener; more wait in its backlog. Default 1024. */
  readonly handshakesPerListener?: number;
  /** How long a closed connection may take to send what is pending and see its peer's end. Default 5 s. Only for an own engine. */
  readonly lingerMs?: number;
}

export interface ReactorDeps {
  readonly log: IoLog;
  /** Called when another thread woke the loop. */
  readonly onWake?: () => void;
}

/** Reactor on epoll: see README.md for what a turn does. */
export class EpollReactor implements Reactor, ConnectionHome, ListenerHome {
  readonly native: NativeEngine;
  readonly slabs = new SlabPool();
  readonly receiveBuffer: Buffer;
  readonly maxPendingBytes: number;
  readonly counters = newReactorCounters();
  readonly #ownedEngines: NativeEngines | null;
  readonly #log: IoLog;
  readonly #onWake: () => void;
  readonly #events = new Int32Array(2 * EVENTS_PER_TURN);
  readonly #accepted: Buffer;
  readonly #handshakesPerListener: number;
  readonly #addresses = Buffer.alloc(2 * ADDRESS_BYTES);
  readonly #pair = new Int32Array(2);
  readonly #byHandle = new Map<number, EngineConnection | EngineListener>();
  readonly #timers: TimerWheel;
  readonly #runTimer = (callback: () => void) => this.guard(callback);
  #dirty: EngineConnection[] = [];
  #endOfTurn: (() => void)[] = [];
  /** Dialled and connected at once: to be told when their dialler has returned. */
  #connected: EngineConnection[] = [];
  #closedReports: { readonly connection: EngineConnection; readonly error: IoError }[] = [];
  #nowMs: number;
  #nextBackOffLogMs = 0;

  constructor(options: ReactorOptions, deps: ReactorDeps) {
    this.#ownedEngines = options.engineId === undefined ? new NativeEngines() : null;
    this.native = new NativeEngine(options.engineId ?? this.#ownedEngines!.create(options.lingerMs ?? 5000));
    this.receiveBuffer = Buffer.allocUnsafeSlow(options.receiveBytes ?? 256 * 1024);
    this.maxPendingBytes = options.maxPendingBytes ?? 16 * 1024 * 1024;
    this.#accepted = Buffer.alloc((options.acceptsPerTurn ?? 32) * ACCEPTED_BYTES);
    this.#handshakesPerListener = options.handshakesPerListener ?? 1024;
    this.#log = deps.log;
    this.#onWake = deps.onWake ?? (() => {});
    this.#nowMs = Math.floor(performance.now());
    this.#timers = new TimerWheel(this.#nowMs);
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Open connections and listeners. */
  get size(): number {
    return this.#byHandle.size;
  }

  /** Connections that were closed and still have bytes to send, or wait for their peer's end. */
  get lingering(): number {
    return this.native.stats().connections - this.size;
  }

  /** Runs turns until the engine is stopped. */
  run(): void {
    while (this.turn(MAX_SLEEP_MS));
  }

  /** One turn: waits at most `maxWaitMs` for events and deals with all that are there. False once the engine was stopped. */
  turn(maxWaitMs: number): boolean {
    const count = this.native.wait(this.#events, this.#waitMs(maxWaitMs));
    if (count < 0) return false;
    this.counters.turns++;
    this.#nowMs = Math.floor(performance.now());
    for (let i = 0; i < count; i++) this.#dispatch(this.#events[2 * i]!, this.#events[2 * i + 1]!);
    this.#timers.expire(this.#nowMs, this.#runTimer);
    this.#finishTurn();
    return true;
  }

  #waitMs(maxWaitMs: number): number {
    if (this.#hasWork()) return 0;
    // The clock may have moved on since the turn began.
    const timerMs = this.#timers.size === 0 ? maxWaitMs : this.#timers.msUntilNext(performance.now());
    return Math.min(maxWaitMs, timerMs);
  }

  #hasWork(): boolean {
    return this.#hasReports() || this.#endOfTurn.length > 0 || this.#dirty.length > 0;
  }

  #hasReports(): boolean {
    return this.#closedReports.length > 0 || this.#connected.length > 0;
  }

  #dispatch(handle: number, events: number): void {
    if (handle === WAKE_HANDLE) {
      this.guard(this.#onWake);
      return;
    }
    // Undefined: closed earlier in this turn.
    const target = this.#byHandle.get(handle);
    if (target === undefined) return;
    if (target instanceof EngineListener) this.guard(() => target.onEvent(events));
    else this.#dispatchConnection(target, events);
    if (this.#hasReports()) this.#report();
  }

  #dispatchConnection(connection: EngineConnection, events: number): void {
    try {
      if ((events & NativeEvent.FAILED) !== 0) {
        connection.failNative();
        return;
      }
      if ((events & NativeEvent.CONNECTED) !== 0) {
        connection.becomeConnected();
        if (connection.isOpen) connection.handler.onConnected(connection);
      }
      if ((events & NativeEvent.DRAINED) !== 0 && connection.isOpen && connection.pendingBytes > 0) {
        connection.pendingBytes = 0;
        connection.handler.onDrained(connection);
      }
      if ((events & NativeEvent.READABLE) !== 0 && connection.isOpen && !connection.isPaused) {
        connection.handler.onReadable(connection);
      }
    } catch (thrown) {
      this.#caught(thrown);
      connection.fail(limitError('HANDLER_FAILED', connection.remote, messageOf(thrown)));
    }
  }

  /** Owners' end-of-turn work, then the slabs; either may bring more of both. */
  #finishTurn(): void {
    this.#report();
    while (this.#hasWork()) {
      const callbacks = this.#endOfTurn;
      this.#endOfTurn = [];
      for (const callback of callbacks) this.guard(callback);
      this.#flushDirty();
      this.#report();
    }
  }

  #flushDirty(): void {
    const dirty = this.#dirty;
    if (dirty.length === 0) return;
    this.#dirty = [];
    for (const connection of dirty) connection.flushDirty();
  }

  /** Tells owners what could not be told from inside the call that found it. */
  #report(): void {
    while (this.#hasReports()) {
      this.#reportConnected();
      const reports = this.#closedReports;
      this.#closedReports = [];
      for (const { connection, error } of reports) {
        if (connection.isAbandoned) continue;
        this.guard(() => connection.handler.onClosed(connection, error));
      }
    }
  }

  #reportConnected(): void {
    const connections = this.#connected;
    if (connections.length === 0) return;
    this.#connected = [];
    for (const connection of connections) {
      if (connection.isOpen) this.#dispatchConnection(connection, NativeEvent.CONNECTED);
    }
  }

  /** Runs `callback`; an exception is counted and logged. */
  guard(callback: () => void): void {
    try {
      callback();
    } catch (thrown) {
      this.#caught(thrown);
    }
  }

  #caught(thrown: unknown): void {
    this.counters.exceptions++;
    this.#log.error({ err: thrown }, `exception in a callback: ${messageOf(thrown)}`);
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    return this.#timers.set(this.#nowMs, delayMs, callback);
  }

  atEndOfTurn(callback: () => void): void {
    this.#endOfTurn.push(callback);
  }

  connect(options: ConnectOptions, handler: ConnectionHandler): Connection {
    writeAddress(this.#addresses, 0, options.to);
    if (options.fromAddress === undefined) this.#addresses[ADDRESS_BYTES] = 0;
    else writeAddress(this.#addresses, ADDRESS_BYTES, { address: options.fromAddress, port: 0 });
    const handle = this.native.connect(
      options.netnsFd ?? -1,
      this.#addresses,
      options.socketStorage,
      options.tls?.context ?? 0,
    );
    const isConnected = handle >= 0 && this.#addresses[1] === 1;
    const connection = new EngineConnection(
      { handle, remote: options.to, local: null, isConnected, handler },
      { home: this },
    );
    this.counters.dialled++;
    if (handle >= 0) this.#byHandle.set(handle, connection);
    if (handle < 0) connection.fail(connectError(-handle, options.to));
    else if (isConnected) this.#connected.push(connection);
    else this.#watchConnect(connection, options);
    return connection;
  }

  #watchConnect(connection: EngineConnection, options: ConnectOptions): void {
    const { tls, connectTimeoutMs } = options;
    const handshakeMs = tls?.handshakeTimeoutMs ?? connectTimeoutMs;
    const firstMs = Math.min(connectTimeoutMs, handshakeMs);
    connection.deadline = this.setTimer(firstMs, () => {
      if (this.native.isConnecting(connection.handle)) {
        connection.fail(limitError('CONNECT_TIMEOUT', connection.remote, `no answer within ${firstMs} ms`));
      } else this.#watchHandshake(connection, handshakeMs - firstMs, handshakeMs);
    });
  }

  #watchHandshake(connection: EngineConnection, remainingMs: number, timeoutMs: number): void {
    const giveUp = () =>
      connection.fail(limitError('HANDSHAKE_TIMEOUT', connection.remote, `not done within ${timeoutMs} ms`));
    if (remainingMs <= 0) giveUp();
    else connection.deadline = this.setTimer(remainingMs, giveUp);
  }

  pair(tls: TlsOptions, remote: SocketAddress, handler: ConnectionHandler): ConnectionPair | null {
    if (this.native.pair(tls.context, this.#pair) < 0) return null;
    const [wireHandle, secureHandle] = this.#pair as unknown as [number, number];
    const own = { remote, local: remote };
    const wire = new EngineConnection(
      { ...own, handle: wireHandle, isConnected: true, handler: NOBODY },
      { home: this },
    );
    const secure = new EngineConnection(
      { ...own, handle: secureHandle, isConnected: false, handler },
      { home: this },
    );
    this.#byHandle.set(wireHandle, wire).set(secureHandle, secure);
    this.counters.dialled++;
    this.#watchHandshake(secure, tls.handshakeTimeoutMs, tls.handshakeTimeoutMs);
    return { wire, secure };
  }

  listen(options: ListenOptions, handler: AcceptHandler): Listener {
    const handle = this.native.listen(options.fd, options.tls !== undefined);
    if (handle < 0) {
      const errno = errnoName(-handle);
      throw new IoError('NO_RESOURCES', `cannot accept from descriptor ${options.fd}: ${errno}`, { errno });
    }
    const maxHandshakes = this.#handshakesPerListener;
    const listener = new EngineListener({ handle, tls: options.tls, maxHandshakes }, { home: this, handler });
    this.#byHandle.set(handle, listener);
    return listener;
  }

  acceptAll(listener: EngineListener, tls: TlsOptions | null): number {
    const count = this.native.accept(listener.handle, tls?.context ?? 0, this.#accepted);
    for (let i = 0; i < count; i++) this.#accept(listener, i * ACCEPTED_BYTES, tls);
    return count;
  }

  #accept(listener: EngineListener, at: number, tls: TlsOptions | null): void {
    const handle = this.#accepted.readInt32LE(at);
    const { local, remote } = addressesAt(this.#accepted, at + 4);
    const connection = new EngineConnection(
      { handle, remote, local, isConnected: tls === null, handler: NOBODY },
      { home: this },
    );
    this.#byHandle.set(handle, connection);
    this.counters.accepted++;
    if (listener.isTls && tls === null) {
      connection.reset();
      return;
    }
    if (tls !== null) {
      this.counters.handshakesAccepted++;
      this.#watchHandshake(connection, tls.handshakeTimeoutMs, tls.handshakeTimeoutMs);
      connection.deadline &&= listener.countHandshake(connection.deadline);
    }
    try {
      const handler = listener.handler.onAccepted(connection);
      if (handler === null) connection.reset();
      else connection.handler = handler;
    } catch (thrown) {
      this.#caught(thrown);
      // Whoever has it by now hears of it.
      connection.fail(limitError('HANDLER_FAILED', connection.remote, messageOf(thrown)));
    }
  }

  pauseListener(handle: number, paused: boolean): void {
    this.native.pause(handle, paused);
  }

  closeListener(handle: number): void {
    this.native.close(handle, false);
    this.#byHandle.delete(handle);
  }

  acceptBackedOff(errno: string): void {
    this.counters.acceptBackOffs++;
    if (this.#nowMs < this.#nextBackOffLogMs) return;
    this.#nextBackOffLogMs = this.#nowMs + BACK_OFF_LOG_MS;
    this.#log.warn({ errno }, `cannot accept connections: ${errno}`);
  }

  markDirty(connection: EngineConnection): void {
    this.#dirty.push(connection);
  }

  forget(handle: number, wasReset: boolean): void {
    this.#byHandle.delete(handle);
    this.counters.closed++;
    if (wasReset) this.counters.reset++;
  }

  reportClosed(connection: EngineConnection, error: IoError): void {
    this.counters.failed++;
    if (error.code === 'HANDSHAKE_FAILED' || error.code === 'HANDSHAKE_TIMEOUT')
      this.counters.handshakesFailed++;
    this.#closedReports.push({ connection, error });
  }

  readAddresses(handle: number): ReturnType<typeof addressesAt> {
    this.native.addresses(handle, this.#addresses);
    return addressesAt(this.#addresses, 0);
  }

  /** Resets every connection. Only for a reactor with an engine of its own; else whoever made the engine destroys it. */
  dispose(): void {
    for (const target of [...this.#byHandle.values()]) {
      if (target instanceof EngineListener) target.stop();
      else target.reset();
    }
    this.#ownedEngines?.destroy(this.native.id);
  }
}
