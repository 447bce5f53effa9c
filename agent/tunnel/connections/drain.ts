import type { HboneClient, HboneServer } from '../../../mesh/hbone/index.js';
import type { Reactor } from '../../../mesh/io/index.js';
import type { ConnectionTable } from './connection-table.js';

/** How often a drain looks whether all is over. */
const pollMs = 20;

/** Connections that a drain has ended, so far. */
export interface DrainCounts {
  /** By FIN: quiet in the second half. */
  ended: number;
  /** By RST: busy at the deadline. */
  reset: number;
}

export interface DrainDeps {
  readonly reactor: Reactor;
  readonly connections: ConnectionTable;
  readonly client: HboneClient;
  /** Of pods that accept no more. */
  readonly servers: readonly HboneServer[];
  /** Connections that were accepted and still wait for what they need to start. */
  readonly waiting: () => number;
  /** Connections that are closed and still have bytes to send, or wait for their peer's end. */
  readonly lingering: () => number;
}

/**
 * The end of a worker: peers hear a GOAWAY at once, what is open goes on to its end, plain relays as tunnels do. From half the deadline on, what is
 * quiet is ended by FIN; at the deadline all is cut. `onDrained` comes when the last byte has left: a tunnel that has ended may have its last
 * bytes in its connection's buffers, and whatever is open when the process ends is reset. Asked every 20 ms: these five end each in its own way.
 */
export function drain(deadlineMs: number, deps: DrainDeps, onDrained: () => void): DrainCounts {
  const { reactor, connections, client, servers } = deps;
  const counts: DrainCounts = { ended: 0, reset: 0 };
  const untilMs = reactor.nowMs + deadlineMs;
  // Their connections a little later, so that the log tells why its tunnels ended.
  const carriersMs = deadlineMs + 2 * pollMs;
  for (const server of servers) server.drain(carriersMs, () => {});
  client.drain(carriersMs, () => {});
  reactor.setTimer(deadlineMs / 2, () =>
    connections.endAllWhenQuiet('agent stops, connection was quiet', () => counts.ended++),
  );
  const isOver = (): boolean =>
    connections.size === 0 &&
    deps.waiting() === 0 &&
    client.stats.connections === 0 &&
    servers.every((server) => server.connectionCount === 0) &&
    deps.lingering() === 0;
  const poll = (): void => {
    if (!isOver() && reactor.nowMs < untilMs) {
      reactor.setTimer(pollMs, poll);
      return;
    }
    counts.reset += connections.abort('agent stopped, connection was busy at the drain deadline');
    // Slabs leave at the end of the turn.
    reactor.setTimer(0, onDrained);
  };
  poll();
  return counts;
}
