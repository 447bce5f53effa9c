import type { ErrorCode, HeaderList, Session, SessionHandler, Stream, StreamHandler } from '../types.js';

export type Event =
  | { type: 'request'; id: number; headers: HeaderList; endStream: boolean }
  | { type: 'headers'; id: number; headers: HeaderList; endStream: boolean }
  | { type: 'data'; id: number; text: string }
  | { type: 'end'; id: number }
  | { type: 'writable'; id: number }
  | { type: 'reset'; id: number; code: ErrorCode; sessionLost: boolean }
  | { type: 'ready' }
  | { type: 'drained' }
  | { type: 'goaway'; code: ErrorCode; lastStreamId: number }
  | { type: 'closed'; code: ErrorCode; reason: string };

/** Records what a session tells; adjoining pieces of data are joined, so that the record does not depend on chunking. */
export class Recorder implements SessionHandler, StreamHandler {
  readonly events: Event[] = [];
  readonly streams = new Map<number, Stream>();
  /** Return bytes to the window at once. */
  consumes = true;
  acceptsRequests = true;
  /** Called after a request was recorded. */
  onRequestHook: ((stream: Stream, headers: HeaderList) => void) | null = null;

  of<T extends Event['type']>(type: T): Extract<Event, { type: T }>[] {
    return this.events.filter((event): event is Extract<Event, { type: T }> => event.type === type);
  }

  onRequest(stream: Stream, headers: HeaderList, endStream: boolean): StreamHandler | null {
    this.events.push({ type: 'request', id: stream.id, headers, endStream });
    this.streams.set(stream.id, stream);
    this.onRequestHook?.(stream, headers);
    return this.acceptsRequests ? this : null;
  }
  onHeaders(stream: Stream, headers: HeaderList, endStream: boolean): void {
    this.events.push({ type: 'headers', id: stream.id, headers, endStream });
  }
  onData(stream: Stream, bytes: Buffer, start: number, end: number): void {
    const text = bytes.toString('latin1', start, end);
    const last = this.events.at(-1);
    if (last?.type === 'data' && last.id === stream.id) last.text += text;
    else this.events.push({ type: 'data', id: stream.id, text });
    if (this.consumes) stream.consumed(end - start);
  }
  onEnd(stream: Stream): void {
    this.events.push({ type: 'end', id: stream.id });
  }
  onReset(stream: Stream, code: ErrorCode, sessionLost: boolean): void {
    this.events.push({ type: 'reset', id: stream.id, code, sessionLost });
  }
  onWritable(stream: Stream): void {
    this.events.push({ type: 'writable', id: stream.id });
  }
  onReady(_session: Session): void {
    this.events.push({ type: 'ready' });
  }
  onGoAway(_session: Session, code: ErrorCode, lastStreamId: number): void {
    this.events.push({ type: 'goaway', code, lastStreamId });
  }
  onDrained(_session: Session): void {
    this.events.push({ type: 'drained' });
  }
  onClosed(_session: Session, code: ErrorCode, reason: string): void {
    this.events.push({ type: 'closed', code, reason });
  }
}
