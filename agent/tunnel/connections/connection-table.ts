import type { Reactor, Timer } from '../../../mesh/io/index.js';
import type { ConnectionSummary } from '../messages.js';
import type { Admission } from './policy-guard.js';

/** A live connection as the table sees it. */
export interface TrackedConnection {
  readonly podUid: string;
  /** Of inbound ones: by which policies it was let in. */
  readonly admission?: Admission | null;
  /** Carried so far, both ways together; -1 while the other side is not reached yet. */
  readonly movedBytes: number;
  summary(): ConnectionSummary;
  /** Resets both sides. */
  abort(cause: string): void;
  /**
   * Ends both directions in our name, by FIN and END_STREAM; `reason` goes to the access log. It is over when both sides have ended, too; a
   * side that goes on sending is reset: nobody would get its bytes. False: not now, bytes wait for a slow reader.
   */
  end(reason: string): boolean;
}

/** What is older than it may be and not quiet for so long is reset. */
const ageGraceMs = 10_000;

export interface ConnectionTableOptions {
  /** Without a byte either way for this long a connection counts as quiet. At least; at most twice as long. */
  readonly quietMs: number;
}

interface Watched {
  readonly reason: string;
  readonly onEnded: () => void;
  movedBytes: number;
  /** Seen first. */
  sinceMs: number;
}

/** All live connections of a worker: what admin lists, what a deleted pod, a drain or its age ends. */
export class ConnectionTable {
  readonly #quietMs: number;
  readonly #reactor: Pick<Reactor, 'setTimer' | 'nowMs'>;
  readonly #all = new Set<TrackedConnection>();
  readonly #watched = new Map<TrackedConnection, Watched>();
  /** Of those whose age is limited: until it is reached, then until the grace is over. */
  readonly #ages = new Map<TrackedConnection, Timer>();
  #timer: Timer | null = null;
  #endAll: Pick<Watched, 'reason' | 'onEnded'> | null = null;

  constructor(
    options: ConnectionTableOptions,
    deps: { readonly reactor: Pick<Reactor, 'setTimer' | 'nowMs'> },
  ) {
    this.#quietMs = options.quietMs;
    this.#reactor = deps.reactor;
  }

  get size(): number {
    return this.#all.size;
  }

  add(connection: TrackedConnection): void {
    this.#all.add(connection);
    if (this.#endAll !== null) this.endWhenQuiet(connection, this.#endAll.reason, this.#endAll.onEnded);
  }

  remove(connection: TrackedConnection): void {
    this.#all.delete(connection);
    if (this.#watched.size > 0) this.#watched.delete(connection);
    if (this.#ages.size === 0) return;
    this.#ages.get(connection)?.cancel();
    this.#ages.delete(connection);
  }

  /** Stays good while connections come and go. */
  values(): Iterator<TrackedConnection> {
    return this.#all.values();
  }

  /** Resets those of one pod, or all; returns how many. */
  abort(cause: string, podUid?: string): number {
    const doomed = [...this.#all].filter(
      (connection) => podUid === undefined || connection.podUid === podUid,
    );
    for (const connection of doomed) connection.abort(cause);
    return doomed.length;
  }

  /**
   * Ends it as soon as it is quiet (`TrackedConnection.end`); nobody has to take it out of the table for that. What has been carried is compared
   * once per `quietMs`: nothing is done per chunk.
   */
  endWhenQuiet(connection: TrackedConnection, reason: string, onEnded: () => void = () => {}): void {
    const { movedBytes } = connection;
    this.#watched.set(connection, { reason, onEnded, movedBytes, sinceMs: this.#reactor.nowMs });
    this.#timer ??= this.#reactor.setTimer(this.#quietMs, () => this.#endQuietOnes());
  }

  /** From this age on it is ended when it is quiet, and reset a grace later. */
  endAtAge(connection: TrackedConnection, maxAgeMs: number): void {
    const endLater = (delayMs: number, onEnd: () => void): void =>
      void this.#ages.set(connection, this.#reactor.setTimer(delayMs, onEnd));
    endLater(maxAgeMs, () => {
      let hasEnded = false;
      endLater(ageGraceMs, () =>
        connection.abort(hasEnded ? 'too old, and did not end when we had' : 'too old, and not quiet'),
      );
      this.endWhenQuiet(connection, 'too old, connection was quiet', () => {
        hasEnded = true;
      });
    });
  }

  /** The same for all that are here and all that come. */
  endAllWhenQuiet(reason: string, onEnded: () => void): void {
    this.#endAll = { reason, onEnded };
    for (const connection of this.#all) this.endWhenQuiet(connection, reason, onEnded);
  }

  /** The first `limit`. */
  summaries(limit: number): ConnectionSummary[] {
    const result: ConnectionSummary[] = [];
    for (const connection of this.#all) {
      if (result.length === limit) break;
      result.push(connection.summary());
    }
    return result;
  }

  #endQuietOnes(): void {
    this.#timer = null;
    const { nowMs } = this.#reactor;
    for (const [connection, watched] of [...this.#watched]) {
      const { movedBytes } = connection;
      if (movedBytes !== watched.movedBytes) {
        watched.movedBytes = movedBytes;
        watched.sinceMs = nowMs;
      }
      const isQuiet = movedBytes >= 0 && nowMs - watched.sinceMs >= this.#quietMs;
      if (!isQuiet || !connection.end(watched.reason)) continue;
      this.#watched.delete(connection);
      watched.onEnded();
    }
    if (this.#watched.size > 0)
      this.#timer = this.#reactor.setTimer(this.#quietMs, () => this.#endQuietOnes());
  }
}
