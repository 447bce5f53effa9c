import { ConnectionError, Http2Error } from './errors.js';
import { FloodGuard } from './flood-guard.js';
import { ReceiveFlow } from './flow-control.js';
import { HeaderCheck } from './headers.js';
import { HpackDecoder } from './hpack/decoder.js';
import { HpackEncoder } from './hpack/encoder.js';
import { Inbound } from './inbound.js';
import { Messages } from './messages.js';
import { type ResolvedOptions, resolveOptions } from './options.js';
import { SendFlow } from './send-flow.js';
import { Http2Stream, type StreamOwner } from './stream.js';
import {
  ErrorCode,
  type HeaderList,
  type Session,
  type SessionDeps,
  type SessionHandler,
  type SessionOptions,
  type Stream,
  type StreamHandler,
} from './types.js';
import { FrameDecoder } from './wire/decoder.js';
import { FrameEncoder } from './wire/encoder.js';
import { CLIENT_PREFACE, DEFAULT_HEADER_TABLE_BYTES, MAX_STREAM_ID, Setting } from './wire/frame.js';
import { PeerSettings } from './wire/settings.js';

/** A session of either role. The preface and SETTINGS are in the output when this returns. Throws `INVALID_OPTION`. */
export function createSession(options: SessionOptions, deps: SessionDeps): Session {
  return new Http2Session(resolveOptions(options), deps);
}

interface Ping {
  readonly sentAtMs: number;
  readonly onAck: (roundTripMs: number) => void;
}

/** State of our own GOAWAY: a server announces first (2^31-1), then names the last stream (RFC 9113 section 6.8). */
type GoAwayPhase = 'none' | 'announced' | 'final';

/** The session's books: streams, settings, GOAWAY, PING. Frames come in by `Inbound`, field blocks by `Messages`. */
export class Http2Session implements Session, StreamOwner {
  readonly role: 'client' | 'server';
  readonly handler: SessionHandler;
  readonly streams = new Map<number, Http2Stream>();
  readonly encoder: FrameEncoder;
  readonly sendFlow: SendFlow;
  readonly receiveFlow: ReceiveFlow;
  readonly guard: FloodGuard;
  readonly headerCheck = new HeaderCheck();
  readonly peerSettings: PeerSettings;
  readonly messages: Messages;
  readonly nowMs: () => number;
  settingsAcked = false;
  private readonly options: ResolvedOptions;
  private readonly hpackEncoder: HpackEncoder;
  private readonly hpackDecoder: HpackDecoder;
  private readonly decoder: FrameDecoder;
  private readonly startedAtMs: number;
  private isClosed = false;
  private nextStreamId = 1;
  /** Highest stream identifier of the client's that we have seen, and that `onRequest` may have acted on. */
  private lastPeerStreamId = 0;
  private goAwayPhase: GoAwayPhase = 'none';
  /** Server: streams above this, of our final GOAWAY, are ignored. */
  private lastAcceptedStreamId = MAX_STREAM_ID;
  private goAwayReceived = false;
  private peerLastStreamId = MAX_STREAM_ID;
  private isDrained = false;
  private readonly pings = new Map<number, Ping>();
  private lastPingToken = 0;
  /** Streams that we reset while the peer could still send: identifier, and the credit it has left for late DATA. */
  private readonly resets = new Map<number, number>();

  constructor(options: ResolvedOptions, deps: SessionDeps) {
    this.options = options;
    this.role = options.role;
    this.handler = deps.handler;
    this.nowMs = deps.nowMs;
    this.startedAtMs = deps.nowMs();
    this.peerSettings = new PeerSettings(options.role === 'client');
    this.hpackEncoder = new HpackEncoder(DEFAULT_HEADER_TABLE_BYTES);
    this.hpackDecoder = new HpackDecoder(options);
    this.encoder = new FrameEncoder({ output: deps.output, hpack: this.hpackEncoder });
    this.sendFlow = new SendFlow(options, deps);
    this.receiveFlow = new ReceiveFlow(options);
    this.guard = new FloodGuard(options.limits, this.startedAtMs);
    this.messages = new Messages(this, options.limits, this.hpackDecoder);
    this.decoder = new FrameDecoder(
      {
        expectPreface: options.role === 'server',
        maxFrameBytes: options.maxFrameBytes,
        maxHeaderBlockBytes: options.limits.maxHeaderBlockBytes,
        maxControlFrameBytes: options.limits.maxControlFrameBytes,
      },
      new Inbound(this, options.limits),
    );
    this.sendPreface();
  }

  get acceptsStreams(): boolean {
    const open = !this.isClosed && !this.goAwayReceived && this.goAwayPhase === 'none';
    return open && this.nextStreamId <= MAX_STREAM_ID;
  }

  get openStreams(): number {
    return this.streams.size;
  }

  get peerMaxConcurrentStreams(): number {
    return this.peerSettings.maxConcurrentStreams;
  }

  get peerAllowsExtendedConnect(): boolean {
    return this.peerSettings.allowsExtendedConnect;
  }

  get maxConcurrentStreams(): number {
    return this.options.maxConcurrentStreams;
  }

  get allowsExtendedConnect(): boolean {
    return this.options.allowExtendedConnect;
  }

  receive(bytes: Buffer, start: number, end: number): void {
    if (this.isClosed) return;
    try {
      this.decoder.push(bytes, start, end);
    } catch (error) {
      if (error instanceof ConnectionError) {
        this.destroy(error.errorCode, error.message);
        return;
      }
      // a handler's own exception: frames of this chunk are lost, so the session cannot go on
      this.destroy(ErrorCode.INTERNAL_ERROR, 'internal error');
      throw error;
    }
  }

  outputDrained(): void {
    this.encoder.blockedBytes = 0;
    if (!this.isClosed) this.sendFlow.serve();
  }

  transportClosed(): void {
    if (this.isClosed) return;
    this.close();
    this.loseStreams(ErrorCode.CANCEL);
  }

  request(headers: HeaderList, handler: StreamHandler, endStream: boolean): Stream {
    if (this.role !== 'client' || !this.acceptsStreams) {
      throw new Http2Error('SESSION_CLOSED', 'the session takes no new streams');
    }
    if (this.streams.size >= this.peerMaxConcurrentStreams) {
      throw new Http2Error('TOO_MANY_STREAMS', `the peer allows ${this.peerMaxConcurrentStreams} streams`);
    }
    const problem = this.headerCheck.request(headers, this.peerAllowsExtendedConnect);
    if (problem !== null)
      throw new Http2Error('INVALID_HEADERS', `cannot send a request: ${problem}`, { headers });
    const stream = this.openStream(this.nextStreamId);
    this.nextStreamId += 2;
    stream.handler = handler;
    stream.isConnect = this.headerCheck.isConnect;
    stream.isHead = this.headerCheck.method === 'HEAD';
    stream.headersSent = true;
    stream.localEnded = endStream;
    // not the peer's doing, and bounded by its stream limit: does not count against it
    const blockedBytes = this.encoder.blockedBytes;
    this.encoder.headers(stream.id, headers, endStream);
    this.encoder.blockedBytes = blockedBytes;
    return stream;
  }

  goAway(code: ErrorCode): void {
    if (this.isClosed || this.goAwayPhase !== 'none') return;
    if (this.role === 'client' || code !== ErrorCode.NO_ERROR) {
      this.sendFinalGoAway(code);
      return;
    }
    this.goAwayPhase = 'announced';
    this.encoder.goAway(MAX_STREAM_ID, code, '');
    this.ping(() => this.sendFinalGoAway(code));
  }

  ping(onAck: (roundTripMs: number) => void): void {
    if (this.isClosed) return;
    this.lastPingToken = (this.lastPingToken + 1) >>> 0;
    this.pings.set(this.lastPingToken, { sentAtMs: this.nowMs(), onAck });
    this.encoder.ping(this.lastPingToken);
  }

  destroy(code: ErrorCode, reason: string): void {
    if (this.isClosed) return;
    this.encoder.dropData();
    this.encoder.goAway(Math.min(this.lastPeerStreamId, this.lastAcceptedStreamId), code, reason);
    this.close();
    this.loseStreams(code);
    this.handler.onClosed(this, code, reason);
  }

  /** A stream that never existed: its HEADERS would come first. */
  isIdle(streamId: number): boolean {
    if (streamId % 2 === 0) return true;
    return this.role === 'server' ? streamId > this.lastPeerStreamId : streamId >= this.nextStreamId;
  }

  /** Throws for HEADERS on a stream that the peer may not open (RFC 9113 section 5.1.1). */
  checkHeadersId(streamId: number): void {
    if (streamId % 2 === 0 || (this.role === 'client' && this.isIdle(streamId))) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, `HEADERS on stream ${streamId}`);
    }
  }

  /** False: the stream lies beyond our final GOAWAY and is ignored. */
  admitPeerStream(streamId: number): boolean {
    this.lastPeerStreamId = streamId;
    if (streamId <= this.lastAcceptedStreamId) return true;
    this.guard.ignoredFrames.spend(this.nowMs());
    this.remember(streamId, this.options.connectionWindowBytes);
    return false;
  }

  openPeerStream(streamId: number): Http2Stream {
    return this.openStream(streamId);
  }

  /** A stream error that the peer provoked. */
  streamError(stream: Http2Stream, code: ErrorCode): void {
    stream.fail(code);
    this.guard.streamErrors.spend(this.nowMs());
  }

  /** DATA on a stream that is not open. */
  lateData(streamId: number, length: number): void {
    const credit = this.expectRemembered(streamId) - length;
    if (credit < 0)
      throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'DATA beyond the window of a reset stream');
    this.resets.set(streamId, credit);
    if (length === 0) this.guard.ignoredFrames.spend(this.nowMs());
  }

  /** HEADERS on a stream that is not open. */
  lateHeaders(streamId: number): void {
    this.expectRemembered(streamId);
    this.guard.ignoredFrames.spend(this.nowMs());
  }

  applySettings(bytes: Buffer, start: number, end: number): void {
    const peer = this.peerSettings;
    const isFirst = !peer.received;
    const windowBefore = peer.initialWindowBytes;
    peer.apply(bytes, start, end);
    this.hpackEncoder.setPeerTableBytes(peer.headerTableBytes);
    this.sendFlow.setPeerFrameBytes(peer.maxFrameBytes);
    this.moveSendWindows(peer.initialWindowBytes - windowBefore);
    this.encoder.settingsAck();
    if (isFirst && !this.isClosed) this.handler.onReady(this);
    this.sendFlow.serve();
  }

  settingsAcknowledged(): void {
    if (this.settingsAcked) {
      this.guard.ignoredFrames.spend(this.nowMs());
      return;
    }
    this.settingsAcked = true;
    this.receiveFlow.observeRoundTrip(this.nowMs() - this.startedAtMs);
    this.receiveFlow.acknowledgeInitialWindow([...this.streams.values()].map((stream) => stream.window));
    this.hpackDecoder.setTableCeiling(this.options.headerTableBytes);
  }

  pingAcknowledged(high: number, token: number): void {
    const ping = high === 0 ? this.pings.get(token) : undefined;
    if (ping === undefined) {
      this.guard.ignoredFrames.spend(this.nowMs());
      return;
    }
    this.pings.delete(token);
    const roundTripMs = this.nowMs() - ping.sentAtMs;
    this.receiveFlow.observeRoundTrip(roundTripMs);
    ping.onAck(roundTripMs);
  }

  goneAway(lastStreamId: number, code: ErrorCode): void {
    if (this.goAwayReceived) this.guard.ignoredFrames.spend(this.nowMs());
    this.goAwayReceived = true;
    if (this.role === 'client') this.loseStreamsAbove(lastStreamId);
    this.handler.onGoAway(this, code, lastStreamId);
    this.checkDrained();
  }

  forget(stream: Http2Stream, isReset: boolean): void {
    this.streams.delete(stream.id);
    this.sendFlow.leave(stream);
    this.receiveFlow.closeStream(stream.window);
    if (isReset && !stream.remoteEnded) this.remember(stream.id, stream.window.creditBytes);
  }

  checkDrained(): void {
    if (this.streams.size > 0 || this.isClosed || this.isDrained) return;
    if (!this.goAwayReceived && this.goAwayPhase !== 'final') return;
    this.isDrained = true;
    this.handler.onDrained(this);
  }

  /** A peer that makes us answer and does not read ends here. */
  checkBlockedBytes(): void {
    if (this.encoder.blockedBytes > this.options.limits.maxBlockedControlBytes) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, 'replies are not read');
    }
  }

  private sendPreface(): void {
    const options = this.options;
    const settings: [number, number][] = [
      [Setting.HEADER_TABLE_SIZE, options.headerTableBytes],
      [Setting.INITIAL_WINDOW_SIZE, options.initialStreamWindowBytes],
      [Setting.MAX_FRAME_SIZE, options.maxFrameBytes],
      [Setting.MAX_HEADER_LIST_SIZE, options.maxHeaderListBytes],
    ];
    if (this.role === 'client') {
      this.encoder.raw(CLIENT_PREFACE);
      settings.push([Setting.ENABLE_PUSH, 0]);
    } else {
      settings.push([Setting.MAX_CONCURRENT_STREAMS, options.maxConcurrentStreams]);
      if (options.allowExtendedConnect) settings.push([Setting.ENABLE_CONNECT_PROTOCOL, 1]);
    }
    this.encoder.settings(settings);
    const increment = this.receiveFlow.openingIncrement;
    if (increment > 0) this.encoder.windowUpdate(0, increment);
  }

  private openStream(id: number): Http2Stream {
    const stream = new Http2Stream(id, this, this.peerSettings.initialWindowBytes);
    this.streams.set(id, stream);
    return stream;
  }

  private moveSendWindows(delta: number): void {
    if (delta === 0) return;
    for (const stream of this.streams.values()) {
      if (!this.sendFlow.openStream(stream, delta)) {
        throw new ConnectionError(
          ErrorCode.FLOW_CONTROL_ERROR,
          'INITIAL_WINDOW_SIZE lifts a window above 2^31-1',
        );
      }
    }
  }

  private sendFinalGoAway(code: ErrorCode): void {
    if (this.isClosed) return;
    this.goAwayPhase = 'final';
    this.lastAcceptedStreamId = this.lastPeerStreamId;
    this.encoder.goAway(this.lastPeerStreamId, code, '');
    this.checkDrained();
  }

  private loseStreamsAbove(lastStreamId: number): void {
    if (lastStreamId > this.peerLastStreamId) {
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, 'GOAWAY raises its last stream');
    }
    this.peerLastStreamId = lastStreamId;
    for (const stream of [...this.streams.values()]) {
      if (stream.id > lastStreamId) stream.lose(ErrorCode.REFUSED_STREAM, false);
    }
  }

  private loseStreams(code: ErrorCode): void {
    for (const stream of [...this.streams.values()]) stream.lose(code, true);
  }

  private close(): void {
    this.isClosed = true;
    this.decoder.stop();
    this.pings.clear();
  }

  private expectRemembered(streamId: number): number {
    const credit = this.resets.get(streamId);
    if (credit !== undefined) return credit;
    if (this.isIdle(streamId))
      throw new ConnectionError(ErrorCode.PROTOCOL_ERROR, `frame on idle stream ${streamId}`);
    throw new ConnectionError(ErrorCode.STREAM_CLOSED, `frame on closed stream ${streamId}`);
  }

  private remember(streamId: number, creditBytes: number): void {
    if (this.resets.size >= this.options.limits.maxRememberedResets) {
      for (const oldest of this.resets.keys()) {
        this.resets.delete(oldest);
        break;
      }
    }
    this.resets.set(streamId, Math.max(0, creditBytes));
  }
}
