import type { NativeEngine } from '../../native/index.js';
import type { SocketAddress } from '../common/address.js';
import { failureError, type IoError, limitError } from './errors.js';
import { MAX_RESERVE_BYTES, type SlabPool } from './slab-pool.js';
import { AGAIN, type Connection, type ConnectionHandler, EOF, type Slab, type Timer } from './types.js';

/** What a connection needs of its reactor. */
export interface ConnectionHome {
  readonly native: NativeEngine;
  readonly slabs: SlabPool;
  /** A connection whose pending bytes pass this is given up. */
  readonly maxPendingBytes: number;
  /** Call `flush` of it at the end of the turn. */
  markDirty(connection: EngineConnection): void;
  /** It is gone: forget its handle. */
  forget(handle: number, wasReset: boolean): void;
  /** Tell its handler soon, not from inside the call that found it. */
  reportClosed(connection: EngineConnection, error: IoError): void;
  readAddresses(handle: number): { readonly local: SocketAddress; readonly remote: SocketAddress };
}

export interface ConnectionOptions {
  /** Below 0: the dial failed at once. */
  readonly handle: number;
  readonly remote: SocketAddress;
  /** Null: asked for when somebody wants to know. */
  readonly local: SocketAddress | null;
  readonly isConnected: boolean;
  readonly handler: ConnectionHandler;
}

const NOWHERE: SocketAddress = { address: '0.0.0.0', port: 0 };

/** One connection of a reactor. What is open, pending or to be closed lives in C under `handle`; this is the face that owners see. */
export class EngineConnection implements Connection {
  handler: ConnectionHandler;
  readonly remote: SocketAddress;
  /** Deadline of connect and handshake, while there is one. */
  deadline: Timer | null = null;
  pendingBytes = 0;
  /** Its owner has let go of it: it hears nothing more, not even of a failure found before. */
  isAbandoned = false;
  readonly #home: ConnectionHome;
  readonly #handle: number;
  #local: SocketAddress | null;
  #isOpen = true;
  #isConnected: boolean;
  #isPaused = false;
  #hasEnded = false;
  #isDirty = false;
  #slab: Slab | null = null;

  constructor(options: ConnectionOptions, deps: { readonly home: ConnectionHome }) {
    this.#home = deps.home;
    this.#handle = options.handle;
    this.remote = options.remote;
    this.#local = options.local;
    this.#isConnected = options.isConnected;
    this.handler = options.handler;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  get handle(): number {
    return this.#handle;
  }

  get local(): SocketAddress {
    if (this.#local === null)
      this.#local = this.#isOpen ? this.#home.readAddresses(this.#handle).local : NOWHERE;
    return this.#local;
  }

  get blocked(): boolean {
    return this.pendingBytes > 0 || !this.#isConnected;
  }

  read(buffer: Buffer, offset: number, length: number): number {
    if (!this.#isOpen) return EOF;
    if (!this.#isConnected) return AGAIN;
    const result = this.#home.native.read(this.#handle, buffer, offset, length);
    if (result < 0 && result !== AGAIN) this.#failed();
    return result;
  }

  reserve(bytes: number): Slab {
    const slab = this.#slab;
    if (slab !== null && slab.bytes.length - slab.end >= bytes) return slab;
    return this.#reserveMore(bytes);
  }

  #reserveMore(bytes: number): Slab {
    if (!this.#isOpen || this.#hasEnded) return this.#home.slabs.sink(bytes);
    const old = this.#slab;
    if (old === null) {
      this.#markDirty();
      this.#slab = this.#home.slabs.borrow(bytes);
      return this.#slab;
    }
    const isFull = old.bytes.length === MAX_RESERVE_BYTES;
    if (isFull || old.end + bytes > MAX_RESERVE_BYTES) return this.#reserveAfterFlush(bytes);
    const larger = this.#home.slabs.borrow(MAX_RESERVE_BYTES);
    old.bytes.copy(larger.bytes, 0, 0, old.end);
    larger.end = old.end;
    this.#home.slabs.giveBack(old);
    this.#slab = larger;
    return larger;
  }

  #reserveAfterFlush(bytes: number): Slab {
    if (!this.#isConnected)
      this.fail(this.#limit('WRITE_OVERFLOW', 'too much was written before it was connected'));
    else this.flush();
    return this.reserve(bytes);
  }

  #markDirty(): void {
    if (this.#isDirty) return;
    this.#isDirty = true;
    this.#home.markDirty(this);
  }

  write(buffer: Buffer, start: number, end: number): number {
    if (!this.#isOpen || this.#hasEnded) return 0;
    if (!this.#isConnected) return this.#writeEarly(buffer, start, end);
    if (this.#slab !== null) this.flush();
    if (this.#isOpen) this.#sent(this.#home.native.write(this.#handle, buffer, start, end));
    return this.pendingBytes;
  }

  /** Before it is connected, bytes wait in its slab. */
  #writeEarly(buffer: Buffer, start: number, end: number): number {
    for (let at = start; at < end && this.#isOpen; ) {
      const part = Math.min(end - at, MAX_RESERVE_BYTES);
      const slab = this.reserve(part);
      slab.end += buffer.copy(slab.bytes, slab.end, at, at + part);
      at += part;
    }
    return this.#slab?.end ?? 0;
  }

  flush(): void {
    const slab = this.#slab;
    if (slab === null || !this.#isConnected) return;
    this.#slab = null;
    if (slab.end > 0) this.#sent(this.#home.native.write(this.#handle, slab.bytes, 0, slab.end));
    this.#home.slabs.giveBack(slab);
  }

  /** The reactor's end of turn. */
  flushDirty(): void {
    this.#isDirty = false;
    this.flush();
  }

  #sent(result: number): void {
    if (result < 0) this.#failed();
    else {
      this.pendingBytes = result;
      if (result > this.#home.maxPendingBytes) {
        this.fail(this.#limit('WRITE_OVERFLOW', `${result} bytes wait that the peer does not read`));
      }
    }
  }

  pauseReading(): void {
    if (!this.#isOpen || this.#isPaused) return;
    this.#isPaused = true;
    if (this.#isConnected) this.#home.native.pause(this.#handle, true);
  }

  resumeReading(): void {
    if (!this.#isOpen || !this.#isPaused) return;
    this.#isPaused = false;
    if (this.#isConnected && this.#home.native.pause(this.#handle, false) < 0) this.#failed();
  }

  shutdownWrite(): void {
    if (!this.#isOpen || this.#hasEnded) return;
    this.flush();
    this.#hasEnded = true;
    if (this.#isOpen && this.#isConnected) this.#sent(this.#home.native.shutdown(this.#handle));
  }

  reset(): void {
    this.isAbandoned = true;
    this.#end(true);
  }

  close(): void {
    this.isAbandoned = true;
    if (!this.#isOpen) return;
    this.flush();
    this.#end(false);
  }

  peerCertificate(): Buffer | null {
    return this.#isOpen ? this.#home.native.peerCertificate(this.#handle) : null;
  }

  peerChain(): Buffer | null {
    return this.#isOpen ? this.#home.native.peerChain(this.#handle) : null;
  }

  /** The engine told that connect or handshake are done: what was asked for before now happens. */
  becomeConnected(): void {
    if (this.#isConnected) return;
    this.#isConnected = true;
    this.#stopDeadline();
    if (this.#isPaused) this.#home.native.pause(this.#handle, true);
    if (this.#slab !== null) this.#markDirty();
    if (this.#hasEnded) {
      this.flush();
      if (this.#isOpen) this.#sent(this.#home.native.shutdown(this.#handle));
    }
  }

  /** Ends it with RST for a reason of ours that its handler is to hear. */
  fail(error: IoError): void {
    if (!this.#isOpen) return;
    this.#end(true);
    this.#home.reportClosed(this, error);
  }

  /** The engine has failed it: fetch why, and let go. */
  failNative(): void {
    if (this.#isOpen) this.#failed();
  }

  #failed(): void {
    if (!this.#isOpen) return;
    const error = failureError(this.#home.native.failure(this.#handle), this.remote);
    this.#end(true);
    this.#home.reportClosed(this, error);
  }

  #end(withReset: boolean): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.pendingBytes = 0;
    this.#stopDeadline();
    if (this.#slab !== null) this.#home.slabs.giveBack(this.#slab);
    this.#slab = null;
    if (this.#handle < 0) return;
    this.#home.native.close(this.#handle, withReset);
    this.#home.forget(this.#handle, withReset);
  }

  #stopDeadline(): void {
    this.deadline?.cancel();
    this.deadline = null;
  }

  #limit(code: 'WRITE_OVERFLOW', detail: string): IoError {
    return limitError(code, this.remote, detail);
  }
}
