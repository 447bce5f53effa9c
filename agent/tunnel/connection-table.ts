import type { ConnectionSummary } from './messages.js';

/** A live connection as the table sees it. */
export interface TrackedConnection {
  readonly podUid: string;
  summary(): ConnectionSummary;
  /** Resets both sides. */
  abort(cause: string): void;
}

/** All live connections of a worker: what admin lists, what a deleted pod or a drain deadline ends. */
export class ConnectionTable {
  readonly #all = new Set<TrackedConnection>();
  #onEmpty: (() => void) | null = null;

  get size(): number {
    return this.#all.size;
  }

  add(connection: TrackedConnection): void {
    this.#all.add(connection);
  }

  remove(connection: TrackedConnection): void {
    this.#all.delete(connection);
    this.#tellIfEmpty();
  }

  /** Calls back once, as soon as there is none: maybe at once. */
  whenEmpty(onEmpty: () => void): void {
    this.#onEmpty = onEmpty;
    this.#tellIfEmpty();
  }

  /** Resets those of one pod, or all; returns how many. */
  abort(cause: string, podUid?: string): number {
    const doomed = [...this.#all].filter(
      (connection) => podUid === undefined || connection.podUid === podUid,
    );
    for (const connection of doomed) connection.abort(cause);
    return doomed.length;
  }

  #tellIfEmpty(): void {
    if (this.#all.size > 0 || this.#onEmpty === null) return;
    const onEmpty = this.#onEmpty;
    this.#onEmpty = null;
    onEmpty();
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
}
