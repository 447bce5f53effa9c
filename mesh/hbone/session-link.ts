import {
  createSession,
  ErrorCode,
  type HeaderList,
  type Session,
  type SessionHandler,
  type SessionOptions,
  type Stream,
  type StreamHandler,
} from '../http2/index.js';
import { type Connection, type ConnectionHandler, EOF, type IoErrorCode, type Reactor } from '../io/index.js';

/** Liveness of a connection by PING (hbone-and-wds.md 1.5), both sides. */
export interface KeepaliveOptions {
  /** First PING after this, then every so often. Default 10 s. */
  readonly pingIntervalMs?: number;
  /** No ACK, and nothing else either, for this long since a PING: the peer is gone. Default 20 s. */
  readonly pingTimeoutMs?: number;
}

/** As the engine reports it. */
export type IoError = Error & { readonly code: IoErrorCode };

/**
 * One HTTP/2 session over one engine connection: feeds it, keeps it alive by PING, and sees to it that whichever of the two dies first takes the other
 * along. What is decided inside a callback of the session is done at the end of the turn (`closeSoon`).
 */
export abstract class SessionLink implements ConnectionHandler {
  protected readonly reactor: Reactor;
  protected connection: Connection | null = null;
  protected session: Session | null = null;
  private readonly pingIntervalMs: number;
  private readonly pingTimeoutMs: number;
  private readonly tick = (): void => this.checkLiveness();
  private readonly onPong = (): void => this.pongReceived();
  private timer: { cancel(): void } | null = null;
  private receivedAtMs = 0;
  private pingSentAtMs = 0;
  private awaitsPong = false;
  private hasPeerSettings = false;
  private isOver = false;
  private isClosing = false;
  private isDoubted = false;

  constructor(reactor: Reactor, keepalive: KeepaliveOptions) {
    this.reactor = reactor;
    this.pingIntervalMs = keepalive.pingIntervalMs ?? 10_000;
    this.pingTimeoutMs = keepalive.pingTimeoutMs ?? 20_000;
  }

  abstract onConnected(connection: Connection): void;
  /** Server: a request. */
  abstract onRequest(stream: Stream, headers: HeaderList): StreamHandler | null;
  /** The peer takes no new streams. */
  abstract onGoAway(): void;
  /** Once, when connection and session are gone; every stream has heard of it. `error`: the engine's, if that is why. */
  protected abstract onLinkOver(cause: string, error: IoError | null): void;
  /** At every PING interval. */
  protected abstract onTick(): void;
  /** The peer's silence has lasted too long. */
  protected abstract onPeerDead(cause: string): void;

  /** False until the peer's SETTINGS came: it may not speak HTTP/2 at all. */
  get isReady(): boolean {
    return this.hasPeerSettings;
  }

  get isLinkOpen(): boolean {
    return !this.isOver && !this.isClosing;
  }

  /** Starts HTTP/2 on a connection whose peer is verified. */
  protected startSession(connection: Connection, options: SessionOptions): Session {
    const nowMs = (): number => this.reactor.nowMs;
    this.session = createSession(options, { output: connection, handler: new SessionEvents(this), nowMs });
    this.receivedAtMs = this.reactor.nowMs;
    this.timer = this.reactor.setTimer(this.pingIntervalMs, this.tick);
    return this.session;
  }

  /** GOAWAY with NO_ERROR, then the end: open streams are lost, what is written still goes out. */
  closeNow(cause: string): void {
    if (this.isOver) return;
    this.session?.destroy(ErrorCode.NO_ERROR, cause);
    this.end(cause, null);
  }

  /** The same at the end of the turn; safe inside a callback of the session. */
  closeSoon(cause: string): void {
    if (!this.isLinkOpen) return;
    this.isClosing = true;
    this.reactor.atEndOfTurn(() => this.closeNow(cause));
  }

  /** A PING out of turn: without a byte from the peer within `timeoutMs` it counts as dead. `why`: it is doubted. */
  protected expectLife(timeoutMs: number, why: string): void {
    const { session } = this;
    if (session === null || !this.isLinkOpen || this.isDoubted) return;
    this.isDoubted = true;
    const askedAtMs = this.reactor.nowMs;
    let hasAnswered = false;
    session.ping(() => {
      hasAnswered = true;
    });
    this.reactor.setTimer(timeoutMs, () => {
      this.isDoubted = false;
      if (!this.isOver && !hasAnswered && this.receivedAtMs <= askedAtMs)
        this.onPeerDead(`${why}, and no answer to PING within ${timeoutMs} ms`);
    });
  }

  /** RST, without a word: there is nobody to talk to, or nobody who may be talked to. */
  protected dropNow(cause: string): void {
    if (this.isOver) return;
    this.connection?.reset();
    this.end(cause, null);
  }

  onReadable(connection: Connection): void {
    const buffer = this.reactor.receiveBuffer;
    const bytes = connection.read(buffer, 0, buffer.length);
    if (bytes > 0) {
      this.receivedAtMs = this.reactor.nowMs;
      this.session?.receive(buffer, 0, bytes);
    } else if (bytes === EOF && connection.isOpen) this.end('the peer closed the connection', null);
  }

  onDrained(): void {
    this.session?.outputDrained();
  }

  onClosed(_connection: Connection, error: IoError): void {
    this.end(error.message, error);
  }

  onSessionReady(): void {
    this.hasPeerSettings = true;
  }

  /** HTTP/2 is over by an error of either side; our GOAWAY is in the output and leaves with the turn. */
  onSessionClosed(code: ErrorCode, reason: string): void {
    if (!this.isLinkOpen) return;
    this.isClosing = true;
    this.reactor.atEndOfTurn(() => this.end(`HTTP/2 ended with error ${code}: ${reason}`, null));
  }

  private end(cause: string, error: IoError | null): void {
    if (this.isOver) return;
    this.isOver = true;
    this.timer?.cancel();
    this.session?.transportClosed();
    this.connection?.close();
    this.onLinkOver(cause, error);
  }

  private checkLiveness(): void {
    if (this.isOver) return;
    const nowMs = this.reactor.nowMs;
    // Any byte is a sign of life: an ACK may wait behind megabytes of DATA on a slow path.
    const heardAtMs = Math.max(this.pingSentAtMs, this.receivedAtMs);
    const isSilent = this.awaitsPong && nowMs - heardAtMs >= this.pingTimeoutMs;
    if (isSilent || !this.hasPeerSettings) {
      this.onPeerDead(isSilent ? `no answer to PING within ${this.pingTimeoutMs} ms` : 'no SETTINGS came');
      return;
    }
    if (!this.session!.settingsAcked) {
      // RFC 9113 6.5.3. A whole interval long it has answered other things.
      this.session!.destroy(ErrorCode.SETTINGS_TIMEOUT, 'our SETTINGS were not acknowledged');
      return;
    }
    if (!this.awaitsPong) {
      this.awaitsPong = true;
      this.pingSentAtMs = nowMs;
      this.session!.ping(this.onPong);
    }
    this.timer = this.reactor.setTimer(this.pingIntervalMs, this.tick);
    this.onTick();
  }

  private pongReceived(): void {
    this.awaitsPong = false;
  }
}

/** A session's events and a connection's share method names, so the session talks to the link through this. */
class SessionEvents implements SessionHandler {
  private readonly link: SessionLink;

  constructor(link: SessionLink) {
    this.link = link;
  }

  onRequest(stream: Stream, headers: HeaderList): StreamHandler | null {
    return this.link.onRequest(stream, headers);
  }

  onReady(): void {
    this.link.onSessionReady();
  }

  onGoAway(): void {
    this.link.onGoAway();
  }

  onDrained(): void {
    this.link.closeSoon('drained');
  }

  onClosed(_session: Session, code: ErrorCode, reason: string): void {
    this.link.onSessionClosed(code, reason);
  }
}
