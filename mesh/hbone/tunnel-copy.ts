import { type Connection, type ConnectionHandler, EOF } from '../io/index.js';
import type { Tunnel, TunnelHandler } from './types.js';

/** Most bytes read from an application at once: one DATA frame, which with its header fills four TLS records. 16 to 128 KiB made no difference beyond noise. */
const readBytes = 4 * 16_384 - 9;

/** Why a connection did not end cleanly; null: FIN and END_STREAM on both sides. */
export type CopyFailure = string | null;

/**
 * Bytes between an application's TCP connection and a tunnel, both ways, flow-controlled, half-close kept per direction. Only END_STREAM and
 * FIN are ends; anything else is a reset of the other side. It is the handler of both, so that no closure stands between a frame and
 * its socket. Application → tunnel: one `recv` straight behind a frame header in the slab. Tunnel → application: one `send` straight from the
 * receive buffer; what the kernel does not take is kept (bounded by the stream's window) and the credit is withheld.
 */
export abstract class TunnelCopy implements ConnectionHandler, TunnelHandler {
  protected readonly app: Connection;
  #tunnel: Tunnel | null = null;
  #appEnded = false;
  #tunnelEnded = false;
  #over = false;
  #waitsForWindow = false;
  #endReason: string | null = null;
  /** Bytes that the application's kernel side has not taken yet: not returned to the window. */
  #uncredited = 0;

  constructor(app: Connection) {
    this.app = app;
  }

  get isOver(): boolean {
    return this.#over;
  }

  /** Why we ended it, where we did. */
  get endReason(): string | null {
    return this.#endReason;
  }

  /** Resets both sides. */
  abort(cause: string): void {
    this.#finish(cause, true, true);
  }

  /** As `TrackedConnection.end`. Of a tunnel that is open. */
  end(reason: string): boolean {
    if (this.#over || this.#tunnel === null || this.#waitsForWindow || this.app.pendingBytes > 0)
      return false;
    if (this.#endReason !== null) return true;
    this.#endReason = reason;
    if (!this.#appEnded) {
      this.#tunnel.endStream();
      // For its FIN.
      this.app.resumeReading();
    }
    if (!this.#tunnelEnded) this.app.shutdownWrite();
    return true;
  }

  /** Bytes went from the application into the tunnel. */
  protected abstract countFromApp(bytes: number): void;
  protected abstract countToApp(bytes: number): void;
  /** Once, when both directions have ended or either side was reset. */
  protected abstract ended(failure: CopyFailure): void;

  /** The application has sent its FIN. */
  protected get hasAppEnded(): boolean {
    return this.#appEnded;
  }

  /** The tunnel did not come to be: the application is somebody else's now. */
  protected handBack(): void {
    this.#over = true;
  }

  /** From now on bytes may go into the tunnel. `appEnded`: the application has no more, and the tunnel knows. */
  protected start(tunnel: Tunnel, appEnded = false): void {
    if (this.#over) {
      tunnel.reset();
      return;
    }
    this.#tunnel = tunnel;
    this.#appEnded = appEnded;
    if (!appEnded) this.app.resumeReading();
    if (this.app.pendingBytes === 0) this.#credit();
  }

  /** What the application has sent already rides in the same flight as the CONNECT. */
  protected readNow(): void {
    if (!this.#over && !this.#appEnded && this.app.isOpen) this.onReadable(this.app);
  }

  /** The tunnel never came to be, or is gone: RST at the application. */
  protected fail(cause: string): void {
    this.#finish(cause, true, false);
  }

  onConnected(_app: Connection): void {}

  onReadable(app: Connection): void {
    const tunnel = this.#tunnel;
    if (tunnel === null) {
      app.pauseReading();
      return;
    }
    const capacity = tunnel.sendCapacity();
    if (capacity === 0) {
      if (this.#endReason !== null) {
        this.#readAfterEnd(app);
        return;
      }
      this.#waitsForWindow = true;
      app.pauseReading();
      return;
    }
    const max = Math.min(capacity, readBytes);
    const slab = tunnel.beginData(max);
    const bytes = app.read(slab.bytes, slab.end, max);
    if (bytes > 0) {
      tunnel.commitData(bytes, false);
      this.countFromApp(bytes);
    } else if (bytes === EOF && app.isOpen) {
      tunnel.commitData(0, true);
      this.#appEnded = true;
      this.#endIfBothEnded();
      if (!this.#over) app.pauseReading();
    } else {
      tunnel.commitData(0, false);
    }
  }

  onDrained(_app: Connection): void {
    this.#credit();
    this.#endIfBothEnded();
  }

  onClosed(_app: Connection, error: Error): void {
    this.#finish(`application: ${error.message}`, false, true);
  }

  onData(bytes: Buffer, start: number, end: number): void {
    if (this.#over) return;
    if (this.#endReason !== null) {
      this.abort(`${this.#endReason}, and the peer went on sending`);
      return;
    }
    this.countToApp(end - start);
    this.#uncredited += end - start;
    if (this.app.write(bytes, start, end) === 0) this.#credit();
  }

  onEnd(): void {
    if (this.#over) return;
    this.#tunnelEnded = true;
    if (this.#appEnded) this.#endIfBothEnded();
    else this.app.shutdownWrite();
  }

  onReset(cause: string): void {
    this.#finish(`tunnel: ${cause}`, true, false);
  }

  onWritable(): void {
    if (!this.#waitsForWindow) return;
    this.#waitsForWindow = false;
    if (!this.#appEnded) this.app.resumeReading();
  }

  /** We have ended its direction already: only its own end is awaited. */
  #readAfterEnd(app: Connection): void {
    const bytes = app.read(Buffer.alloc(1), 0, 1);
    if (bytes > 0) {
      this.abort(`${this.#endReason}, and the application went on sending`);
    } else if (bytes === EOF && app.isOpen) {
      this.#appEnded = true;
      app.pauseReading();
      this.#endIfBothEnded();
    }
  }

  #credit(): void {
    if (this.#uncredited === 0 || this.#tunnel === null) return;
    const bytes = this.#uncredited;
    this.#uncredited = 0;
    this.#tunnel.consumed(bytes);
  }

  /**
   * `close` sends the FIN that is still owed: no `shutdown` before it (a syscall less for each connection that its client ends first). What the
   * application has not taken yet is not left to `close`, which does not wait for slow readers, and is part of a drain.
   */
  #endIfBothEnded(): void {
    if (!this.#appEnded || !this.#tunnelEnded || this.#over) return;
    if (this.app.pendingBytes > 0) {
      this.app.shutdownWrite();
      return;
    }
    this.#over = true;
    this.app.close();
    this.ended(null);
  }

  #finish(failure: string, resetApp: boolean, resetTunnel: boolean): void {
    if (this.#over) return;
    this.#over = true;
    if (resetApp) this.app.reset();
    if (resetTunnel) this.#tunnel?.reset();
    this.ended(failure);
  }
}
