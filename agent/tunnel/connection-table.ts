import type { HboneClient, HboneServer } from '../../mesh/hbone/index.js';
import type { Reactor } from '../../mesh/io/index.js';
import type { ConnectionSummary } from './messages.js';
import type { Admission } from './policy-guard.js';

/** How often a drain looks whether all is over. */
const pollMs = 20;

/** A live connection as the table sees it. */
export interface TrackedConnection {
  readonly podUid: string;
  /** Of inbound ones: by which policies it was let in. */
  readonly admission?: Admission | null;
  summary(): ConnectionSummary;
  /** Resets both sides. */
  abort(cause: string): void;
}

/** All live connections of a worker: what admin lists, what a deleted pod or a drain deadline ends. */
export class ConnectionTable {
  readonly #all = new Set<TrackedConnection>();

  get size(): number {
    return this.#all.size;
  }

  add(connection: TrackedConnection): void {
    this.#all.add(connection);
  }

  remove(connection: TrackedConnection): void {
    this.#all.delete(connection);
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

export interface DrainDeps {
  readonly reactor: Reactor;
  readonly connections: ConnectionTable;
  readonly client: HboneClient;
  /** Of pods that accept no more. */
  readonly servers: readonly HboneServer[];
  /** Connections that are closed and still have bytes to send, or wait for their peer's end. */
  readonly lingering: () => number;
}

/**
 * The end of a worker: peers hear a GOAWAY at once, what is open goes on to its end, plain relays as tunnels do. `onDrained` comes when the last byte
 * has left: a tunnel that has ended may have its last bytes in its connection's buffers, and whatever is open when the process ends is reset.
 * At the deadline all is cut. Asked every 20 ms: these four end each in its own way.
 */
export function drain(deadlineMs: number, deps: DrainDeps, onDrained: () => void): void {
  const { reactor, connections, client, servers } = deps;
  const untilMs = reactor.nowMs + deadlineMs;
  // Their connections a little later, so that the log tells why its tunnels ended.
  const carriersMs = deadlineMs + 2 * pollMs;
  for (const server of servers) server.drain(carriersMs, () => {});
  client.drain(carriersMs, () => {});
  const isOver = (): boolean =>
    connections.size === 0 &&
    client.stats.connections === 0 &&
    servers.every((server) => server.connectionCount === 0) &&
    deps.lingering() === 0;
  const poll = (): void => {
    if (!isOver() && reactor.nowMs < untilMs) {
      reactor.setTimer(pollMs, poll);
      return;
    }
    connections.abort('agent stopped');
    // Slabs leave at the end of the turn.
    reactor.setTimer(0, onDrained);
  };
  poll();
}
