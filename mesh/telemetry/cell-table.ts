import { overflowLabels, tcpLabelsOf } from './labels.js';
import type { CellDelta, ConnectionInfo, ResponseFlag } from './types.js';

/** The counters of one label set in this worker. Incremented in place, per chunk: plain numbers (11 ns; prom-client's `inc` with these labels 6.8 us). */
export interface Cell {
  opened: number;
  closed: number;
  failed: number;
  /** Server to client. */
  sentBytes: number;
  /** Client to server. */
  receivedBytes: number;
}

export interface CellTableOptions {
  /** Label sets held at most; connections beyond share one set of `unknown` per reporter and flag. @default 20000 */
  readonly maxCells?: number;
  /** A label set without open connections is dropped when nothing has changed for this long. @default 900000 */
  readonly evictAfterMs?: number;
}

interface Entry {
  readonly id: number;
  readonly key: string;
  readonly labels: readonly string[];
  readonly cell: Cell;
  /** As handed over last. */
  readonly reported: Cell;
  announced: boolean;
  changedAtMs: number;
}

/** A label set found by what it was made from: objects, which are other ones when a workload was updated. */
interface Resolution {
  readonly reporter: ConnectionInfo['reporter'];
  readonly sourceIdentity: string | null;
  readonly destinationIdentity: string | null;
  readonly service: ConnectionInfo['service'];
  readonly mutualTls: boolean;
  readonly flag: ResponseFlag;
  readonly entry: Entry;
}

/** By what stands for the source, then the destination: workload, or else baggage. Keys of text took 2 us a connection to build and hash. */
type Resolutions = Map<object | null, Map<object | null, Resolution[]>>;

/** Resolutions are made anew after so long: until then they hold workloads and services that were replaced. */
const resolutionsLastMs = 300_000;

/** The label sets of one worker: found once per pair of parties, service and flag, then counted in plain objects. */
export class CellTable {
  readonly #maxCells: number;
  readonly #evictAfterMs: number;
  readonly #resolutions: Resolutions = new Map();
  #resolved = 0;
  #resolvedSinceMs = Number.NEGATIVE_INFINITY;
  readonly #entries = new Map<string, Entry>();
  #nextId = 1;

  constructor(options: CellTableOptions) {
    this.#maxCells = options.maxCells ?? 20_000;
    this.#evictAfterMs = options.evictAfterMs ?? 900_000;
  }

  /** How many pairs of parties, service and flag are remembered. */
  get resolutions(): number {
    return this.#resolved;
  }

  /** Count into it at once: an unused cell may be evicted at the next `takeDeltas`. */
  cellOf(info: ConnectionInfo, flag: ResponseFlag): Cell {
    const known = this.#resolutionsOf(info);
    for (const resolution of known) if (isOf(resolution, info, flag)) return resolution.entry.cell;
    const entry = this.#entryOf(info, flag);
    this.#resolved++;
    known.push({
      reporter: info.reporter,
      sourceIdentity: info.source.identity,
      destinationIdentity: info.destination.identity,
      service: info.service,
      mutualTls: info.mutualTls,
      flag,
      entry,
    });
    return entry.cell;
  }

  #resolutionsOf({ source, destination }: ConnectionInfo): Resolution[] {
    const from = source.workload ?? source.baggage;
    const to = destination.workload ?? destination.baggage;
    const ofSource = this.#resolutions.get(from) ?? new Map<object | null, Resolution[]>();
    const ofBoth = ofSource.get(to) ?? [];
    if (ofBoth.length === 0) {
      ofSource.set(to, ofBoth);
      this.#resolutions.set(from, ofSource);
    }
    return ofBoth;
  }

  /** What changed since the last call, and the ids of what was evicted. */
  takeDeltas(nowMs: number): { cells: CellDelta[]; evicted: number[] } {
    const cells: CellDelta[] = [];
    const evicted: number[] = [];
    for (const entry of this.#entries.values()) {
      const delta = takeDelta(entry);
      if (delta !== null) {
        entry.changedAtMs = nowMs;
        cells.push(delta);
      } else if (isIdle(entry) && nowMs - entry.changedAtMs >= this.#evictAfterMs) {
        this.#entries.delete(entry.key);
        evicted.push(entry.id);
      }
    }
    if (
      evicted.length > 0 ||
      this.#resolved > this.#maxCells ||
      nowMs - this.#resolvedSinceMs >= resolutionsLastMs
    )
      this.#forgetResolutions(nowMs);
    return { cells, evicted };
  }

  #entryOf(info: ConnectionInfo, flag: ResponseFlag): Entry {
    const labels = tcpLabelsOf(info, flag);
    const found = this.#entries.get(keyOf(labels));
    if (found !== undefined) return found;
    if (this.#entries.size < this.#maxCells) return this.#newEntry(labels);
    const overflow = overflowLabels(info.reporter, flag);
    return this.#entries.get(keyOf(overflow)) ?? this.#newEntry(overflow);
  }

  #newEntry(labels: readonly string[]): Entry {
    const entry: Entry = {
      id: this.#nextId++,
      key: keyOf(labels),
      labels,
      cell: newCell(),
      reported: newCell(),
      announced: false,
      changedAtMs: Number.POSITIVE_INFINITY,
    };
    this.#entries.set(entry.key, entry);
    return entry;
  }

  #forgetResolutions(nowMs: number): void {
    this.#resolutions.clear();
    this.#resolved = 0;
    this.#resolvedSinceMs = nowMs;
  }
}

function takeDelta(entry: Entry): CellDelta | null {
  const { cell, reported } = entry;
  if (isSame(cell, reported)) return null;
  const delta = {
    id: entry.id,
    labels: entry.announced ? null : entry.labels,
    opened: cell.opened - reported.opened,
    closed: cell.closed - reported.closed,
    failed: cell.failed - reported.failed,
    sentBytes: cell.sentBytes - reported.sentBytes,
    receivedBytes: cell.receivedBytes - reported.receivedBytes,
  };
  Object.assign(reported, cell);
  entry.announced = true;
  return delta;
}

/** Of thousands, four times a second: nothing is allocated for those that have not changed. */
function isSame(a: Cell, b: Cell): boolean {
  return (
    a.opened === b.opened &&
    a.closed === b.closed &&
    a.failed === b.failed &&
    a.sentBytes === b.sentBytes &&
    a.receivedBytes === b.receivedBytes
  );
}

function isIdle(entry: Entry): boolean {
  return entry.cell.opened === entry.cell.closed;
}

function isOf(known: Resolution, info: ConnectionInfo, flag: ResponseFlag): boolean {
  return (
    known.flag === flag &&
    known.reporter === info.reporter &&
    known.service === info.service &&
    known.mutualTls === info.mutualTls &&
    known.sourceIdentity === info.source.identity &&
    known.destinationIdentity === info.destination.identity
  );
}

function keyOf(labels: readonly string[]): string {
  return labels.join('\n');
}

function newCell(): Cell {
  return { opened: 0, closed: 0, failed: 0, sentBytes: 0, receivedBytes: 0 };
}
