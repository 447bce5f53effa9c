import { messageOf } from '../common/errors.js';
import {
  ErrorCode,
  type HeaderList,
  type Session,
  type Slab,
  type Stream,
  type StreamHandler,
} from '../http2/index.js';
import type { Timer } from '../io/index.js';
import type { BaggageTexts } from './baggage.js';
import { readMetadata } from './connect-headers.js';
import type { ClientTunnelHandler, Tunnel, TunnelFailure, Undelivered } from './types.js';

/** The pool, as a tunnel needs it. */
export interface TunnelOwner {
  readonly baggageTexts: BaggageTexts;
  /** Opens it on a connection with room, when there is one. */
  place(tunnel: ClientTunnel): void;
  /** It waits for a connection no more. */
  withdraw(tunnel: ClientTunnel): void;
  setTimer(delayMs: number, callback: () => void): Timer;
}

/** The connection that carries a tunnel. */
export interface TunnelCarrier {
  tunnelEnded(): void;
  /** The peer takes no more tunnels here, whatever its SETTINGS say. */
  retire(): void;
  /** What its loss before an answer means. */
  failureOf(cause: string): TunnelFailure;
  /** A CONNECT has got no answer in time. */
  unanswered(): void;
  /** As `Tunnel.revocation`. */
  readonly revocation: string | null;
}

export interface ClientTunnelOptions {
  readonly headers: HeaderList;
  /** As in `HboneClientOptions`. */
  readonly earlyDataBytes: number;
  /** Until the answer, from now. */
  readonly timeoutMs: number;
  /** What an earlier attempt has not delivered; goes first. */
  readonly undelivered: Undelivered | null;
}

type State =
  | 'waiting' // for a connection
  | 'asked' // CONNECT is sent
  | 'open' // 200 came
  | 'over';

/**
 * The client's end of one tunnel. Once open it hands everything straight to its stream. Before the 200 it lets at most `earlyDataBytes` ride behind the CONNECT and keeps a copy,
 * so that a CONNECT which the peer did surely not look at (REFUSED_STREAM, or above a GOAWAY's last stream) can be sent once more.
 */
export class ClientTunnel implements Tunnel, StreamHandler {
  readonly headers: HeaderList;
  revocation: string | null = null;
  private readonly handler: ClientTunnelHandler;
  private readonly owner: TunnelOwner;
  private readonly earlyLimitBytes: number;
  private readonly timeoutMs: number;
  private readonly timer: Timer;
  private state: State = 'waiting';
  private stream: Stream | null = null;
  private carrier: TunnelCarrier | null = null;
  private hasRetried = false;
  private localEnded = false;
  private remoteEnded = false;
  /** The owner was told that nothing can be sent now, by us and not by the stream: we owe it an `onWritable`. */
  private owesWritable = false;
  /** What went behind the CONNECT, until the answer to it. */
  private early: Buffer | null = null;
  /** A second CONNECT is out, and from here on `early` has still to go behind it. */
  private replayFrom = 0;
  private isReplaying = false;
  private slab: Slab | null = null;
  private slabStart = 0;

  constructor(options: ClientTunnelOptions, handler: ClientTunnelHandler, owner: TunnelOwner) {
    this.headers = options.headers;
    this.handler = handler;
    this.owner = owner;
    this.earlyLimitBytes = options.earlyDataBytes;
    this.timeoutMs = options.timeoutMs;
    this.timer = owner.setTimer(options.timeoutMs, () => this.late());
    this.early = options.undelivered?.bytes ?? null;
    this.localEnded = options.undelivered?.ended ?? false;
  }

  get isOpen(): boolean {
    return this.state !== 'over';
  }

  /** The pool has a connection with room: sends the CONNECT, and whatever may ride behind it. */
  begin(session: Session, carrier: TunnelCarrier): void {
    this.carrier = carrier;
    try {
      this.stream = session.request(this.headers, this, false);
    } catch (error) {
      this.fail({ flag: 'CONNECT', message: messageOf(error) });
      return;
    }
    this.state = 'asked';
    this.replayFrom = 0;
    this.isReplaying = this.early !== null || this.localEnded;
    if (this.isReplaying) this.replay();
    this.payWritable();
  }

  /** No tunnel. Says so to the owner, once. */
  fail(failure: TunnelFailure): void {
    if (this.state === 'over') return;
    const isUndelivered = this.state === 'waiting' || failure.status !== undefined;
    const undelivered = isUndelivered ? { bytes: this.early, ended: this.localEnded } : null;
    this.over();
    this.handler.onFailed(failure, undelivered);
  }

  sendCapacity(): number {
    if (this.state === 'open' && !this.isReplaying) return this.stream!.sendCapacity();
    if (this.state === 'over' || this.localEnded) return 0;
    const earlyBytes = this.early === null ? 0 : this.early.length;
    const room = this.state === 'asked' && !this.isReplaying ? this.earlyLimitBytes - earlyBytes : 0;
    if (room > 0) return Math.min(room, this.stream!.sendCapacity());
    this.owesWritable = true;
    return 0;
  }

  beginData(max: number): Slab {
    const slab = this.stream!.beginData(max);
    if (this.state === 'asked') {
      this.slab = slab;
      this.slabStart = slab.end;
    }
    return slab;
  }

  commitData(bytes: number, endStream: boolean): void {
    if (this.state === 'asked' && bytes > 0) this.keepEarly(bytes);
    if (endStream) this.localEnded = true;
    this.stream!.commitData(bytes, endStream);
    this.endIfBothEnded();
  }

  endStream(): void {
    if (this.localEnded || this.state === 'over') return;
    this.localEnded = true;
    if (this.state !== 'waiting' && !this.isReplaying) this.stream!.endStream();
    this.endIfBothEnded();
  }

  reset(): void {
    if (this.state === 'over') return;
    if (this.state === 'waiting') this.owner.withdraw(this);
    this.stream?.reset(ErrorCode.CANCEL);
    this.over();
  }

  consumed(bytes: number): void {
    if (this.state !== 'over') this.stream!.consumed(bytes);
  }

  /** An answer: mesh/http2 lets no trailers through on a tunnel. */
  onHeaders(stream: Stream, headers: HeaderList): void {
    const status = Number(headers[0]?.[1]);
    if (status >= 100 && status < 200) return;
    if (status === 200) {
      this.opened(headers);
      return;
    }
    stream.reset(ErrorCode.CANCEL);
    const flag = status === 401 ? 'DENY' : 'CONNECT';
    this.fail({ flag, status, message: `the peer refused the tunnel with status ${status}` });
  }

  onData(_stream: Stream, bytes: Buffer, start: number, end: number): void {
    this.handler.onData(bytes, start, end);
  }

  onEnd(_stream: Stream): void {
    if (this.state !== 'open') return;
    this.remoteEnded = true;
    this.handler.onEnd();
    this.endIfBothEnded();
  }

  onReset(_stream: Stream, code: ErrorCode, sessionLost: boolean): void {
    if (this.state === 'open') {
      this.revocation = this.carrier!.revocation;
      this.lost(
        sessionLost
          ? 'the connection to the peer is lost'
          : `the peer reset the tunnel (HTTP/2 error ${code})`,
      );
    } else if (!sessionLost && code === ErrorCode.REFUSED_STREAM && !this.hasRetried) this.retry();
    else if (this.state === 'asked') {
      const cause = sessionLost
        ? 'the connection is lost'
        : `the peer reset the request (HTTP/2 error ${code})`;
      this.fail(this.carrier!.failureOf(cause));
    }
  }

  onWritable(_stream: Stream): void {
    if (this.isReplaying) this.replay();
    if (!this.isReplaying && !this.localEnded) this.handler.onWritable();
  }

  private opened(headers: HeaderList): void {
    this.state = 'open';
    this.timer.cancel();
    if (!this.isReplaying) this.early = null;
    this.slab = null;
    this.handler.onEstablished(readMetadata(headers, this.owner.baggageTexts));
    if (!this.isReplaying) this.payWritable();
  }

  private late(): void {
    const within = `within ${Math.round(this.timeoutMs)} ms`;
    if (this.state === 'waiting') {
      this.owner.withdraw(this);
      this.fail({ flag: 'CONNECT', message: `no connection to the peer ${within}` });
    } else if (this.state === 'asked') {
      this.stream!.reset(ErrorCode.CANCEL);
      this.carrier!.unanswered();
      this.fail(this.carrier!.failureOf(`no answer to CONNECT ${within}`));
    }
  }

  private keepEarly(bytes: number): void {
    const added = this.slab!.bytes.subarray(this.slabStart, this.slabStart + bytes);
    this.early = this.early === null ? Buffer.from(added) : Buffer.concat([this.early, added]);
  }

  /** Sends what the refused request had carried, as far as it can go now. */
  private replay(): void {
    const { early, localEnded } = this;
    while (early !== null && this.replayFrom < early.length) {
      const bytes = this.stream!.sendData(early, this.replayFrom, early.length, localEnded);
      if (bytes === 0) return;
      this.replayFrom += bytes;
    }
    if (early === null) this.stream!.endStream();
    if (this.state === 'open') this.early = null;
    this.isReplaying = false;
  }

  private retry(): void {
    this.hasRetried = true;
    this.state = 'waiting';
    this.stream = null;
    this.carrier!.retire();
    this.leaveCarrier();
    this.owner.place(this);
  }

  private payWritable(): void {
    if (!this.owesWritable || this.state === 'over' || this.localEnded) return;
    this.owesWritable = false;
    this.handler.onWritable();
  }

  private lost(cause: string): void {
    if (this.state === 'over') return;
    this.over();
    this.handler.onReset(cause);
  }

  private endIfBothEnded(): void {
    if (this.localEnded && this.remoteEnded && this.state === 'open') this.over();
  }

  private over(): void {
    this.state = 'over';
    this.timer.cancel();
    this.early = null;
    this.leaveCarrier();
  }

  private leaveCarrier(): void {
    const { carrier } = this;
    this.carrier = null;
    carrier?.tunnelEnded();
  }
}
