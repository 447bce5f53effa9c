import type { SocketAddress } from '../../mesh/common/address.js';
import { waitFor } from '../lab/index.js';
import { type Bed, holdIdle, type Load, type LoadResult, type RunningPeer, runLoad } from './bed.js';
import { cpuSecondsOf, type Memory, memoryOf, processTree } from './usage.js';

/** One reading of one row for one peer. */
export interface Measurement {
  readonly value: number;
  readonly p50Us: number | null;
  readonly p99Us: number | null;
  /** Both proxies, per 100,000 operations or per GB (10^9 bytes); null where nothing stands between client and server. */
  readonly cpuSeconds: number | null;
  /** Memory rows: as `value`, but of pages that nobody else maps. */
  readonly privateMb: number | null;
  /** memory-idle: PSS of the larger of the two proxies. */
  readonly largestMb: number | null;
}

/** A row that loads the peer; `memory-…` rows are measured by `measureMemory`. */
export interface LoadRow extends Omit<Load, 'secs'> {
  readonly name: string;
  readonly unit: string;
}

export const LOAD_ROWS: readonly LoadRow[] = [
  { name: 'rps-1', unit: 'requests/s', kind: 'rr', connections: 1 },
  { name: 'rps-32', unit: 'requests/s', kind: 'rr', connections: 32 },
  { name: 'rps-128', unit: 'requests/s', kind: 'rr', connections: 128 },
  { name: 'connections', unit: 'connections/s', kind: 'connect', connections: 32 },
  { name: 'bulk-up', unit: 'Gbit/s', kind: 'up', connections: 1 },
  { name: 'bulk-down', unit: 'Gbit/s', kind: 'down', connections: 1 },
  { name: 'bulk-up-8', unit: 'Gbit/s', kind: 'up', connections: 8 },
];

export const MEMORY_ROWS = [
  { name: 'memory-idle', unit: 'MB' },
  { name: 'memory-1000', unit: 'MB added' },
] as const;

/** Idle connections of row memory-1000. */
const IDLE_CONNECTIONS = 1000;

/** Loads the peer for a moment, then for `secs`, and reads CPU time around the latter. */
export async function measureLoad(
  bed: Bed,
  peer: RunningPeer,
  row: LoadRow,
  secs: number,
): Promise<Measurement> {
  const { kind, connections } = row;
  await runLoad(bed, peer.target, { kind, connections, secs: Math.min(0.5, secs / 3) });
  const pids = processTree(peer.proxies.map((proxy) => proxy.pid));
  let before = 0;
  const result = await runLoad(bed, peer.target, { kind, connections, secs }, () => {
    before = cpuSecondsOf(pids);
  });
  const cpu = cpuSecondsOf(pids) - before;
  const isBulk = row.kind === 'up' || row.kind === 'down';
  return {
    value: isBulk ? (result.bytes * 8) / result.secs / 1e9 : result.operations / result.secs,
    p50Us: isBulk ? null : result.p50Us,
    p99Us: isBulk ? null : result.p99Us,
    cpuSeconds: pids.length === 0 ? null : cpu / unitsOf(result, isBulk),
    privateMb: null,
    largestMb: null,
  };
}

/** Memory of a pair that has carried one request, then with a thousand idle connections. */
export async function measureMemory(
  bed: Bed,
  peer: RunningPeer,
): Promise<Record<'memory-idle' | 'memory-1000', Measurement>> {
  const idle = await settledMemory(peer);
  const each = peer.proxies.map((proxy) => memoryOf(processTree([proxy.pid])).pssMb);
  const full = await withIdleConnections(bed, peer.target, () => settledMemory(peer));
  return {
    'memory-idle': { ...memoryReading(idle), largestMb: Math.max(...each) },
    'memory-1000': memoryReading({
      pssMb: full.pssMb - idle.pssMb,
      privateMb: full.privateMb - idle.privateMb,
    }),
  };
}

/** Memory of both proxies once two readings half a second apart agree to 1 %. */
export async function settledMemory(peer: RunningPeer): Promise<Memory> {
  let last: Memory | null = null;
  return await waitFor(
    'memory to settle',
    () => {
      const previous = last;
      last = memoryOf(processTree(peer.proxies.map((proxy) => proxy.pid)));
      return previous !== null && Math.abs(last.pssMb - previous.pssMb) <= previous.pssMb / 100 ? last : null;
    },
    { intervalMs: 500, timeoutMs: 30_000 },
  );
}

async function withIdleConnections<T>(bed: Bed, target: SocketAddress, read: () => Promise<T>): Promise<T> {
  const holder = await holdIdle(bed, target, IDLE_CONNECTIONS);
  try {
    return await read();
  } finally {
    await holder.stop();
  }
}

function unitsOf(result: LoadResult, isBulk: boolean): number {
  return isBulk ? result.bytes / 1e9 : result.operations / 100_000;
}

function memoryReading(memory: Memory): Measurement {
  const none = { p50Us: null, p99Us: null, cpuSeconds: null, largestMb: null };
  return { value: memory.pssMb, privateMb: memory.privateMb, ...none };
}
