import { labelsText } from './exposition.js';
import { TCP_LABEL_NAMES } from './labels.js';
import { PolicyDenialTotals } from './policy-denials.js';
import type { CellDelta, MetricFamily, MetricSample, TelemetryBatch } from './types.js';

export interface TcpMetricsOptions {
  /** A label set that no worker holds any more is dropped after this long. @default 900000 */
  readonly evictAfterMs?: number;
}

interface MergedCell {
  readonly key: string;
  readonly labels: string;
  readonly reporter: string;
  opened: number;
  closed: number;
  failed: number;
  sentBytes: number;
  receivedBytes: number;
  /** Workers that count into it. */
  holders: number;
  changedAtMs: number;
}

interface WorkerCell {
  readonly merged: MergedCell;
  /** Connections open in this worker. */
  open: number;
}

type Counter = 'opened' | 'closed' | 'failed' | 'sentBytes' | 'receivedBytes';

const FAMILIES: readonly { readonly name: string; readonly counter: Counter; readonly help: string }[] = [
  { name: 'istio_tcp_connections_opened_total', counter: 'opened', help: 'TCP connections opened' },
  { name: 'istio_tcp_connections_closed_total', counter: 'closed', help: 'TCP connections closed' },
  { name: 'istio_tcp_received_bytes_total', counter: 'receivedBytes', help: 'Bytes from client to server' },
  { name: 'istio_tcp_sent_bytes_total', counter: 'sentBytes', help: 'Bytes from server to client' },
  { name: 'istio_tcp_connections_failed_total', counter: 'failed', help: 'TCP connections that failed' },
];

/** Looked at this often, also where nobody scrapes. */
const sweepMs = 60_000;

/** Main's sum over all workers of Istio's TCP metrics (sheet 7.1). */
export class TcpMetrics {
  readonly #evictAfterMs: number;
  readonly #nowMs: () => number;
  readonly #merged = new Map<string, MergedCell>();
  readonly #workers = new Map<number, Map<number, WorkerCell>>();
  readonly #denials = new PolicyDenialTotals();
  #droppedLines = 0;
  #sweptAtMs: number;

  constructor(options: TcpMetricsOptions, deps: { readonly nowMs: () => number }) {
    this.#evictAfterMs = options.evictAfterMs ?? 900_000;
    this.#nowMs = deps.nowMs;
    this.#sweptAtMs = deps.nowMs();
  }

  /** Adds what a worker counted. `worker` names it for `workerLost`. */
  merge(worker: number, batch: TelemetryBatch): void {
    const cells = this.#cellsOf(worker);
    for (const delta of batch.cells) this.#add(cells, delta);
    for (const id of batch.evicted) {
      const cell = cells.get(id);
      if (cell === undefined) continue;
      cells.delete(id);
      cell.merged.holders--;
    }
    this.#denials.merge(batch.policyDenials);
    this.#droppedLines += batch.droppedLines;
    if (this.#nowMs() - this.#sweptAtMs >= sweepMs) this.#evict();
  }

  /** A worker died: its connections are closed, and its successor starts counting anew. */
  workerLost(worker: number): void {
    for (const cell of this.#workers.get(worker)?.values() ?? []) {
      cell.merged.closed += cell.open;
      cell.merged.holders--;
      cell.merged.changedAtMs = this.#nowMs();
    }
    this.#workers.delete(worker);
  }

  /** Label sets held. */
  get size(): number {
    return this.#merged.size;
  }

  /** A `MetricSource`. */
  collect(): readonly MetricFamily[] {
    this.#evict();
    const cells = [...this.#merged.values()];
    const families = FAMILIES.map(({ name, counter, help }): MetricFamily => {
      const shown = cells.filter((cell) => (counter === 'failed' ? cell.failed > 0 : cell.opened > 0));
      return { name, help, type: 'counter', samples: shown.map((cell) => sampleOf(cell, counter)) };
    });
    return [...families, this.#openSockets(cells), this.#denials.collect(), this.#dropped()];
  }

  #cellsOf(worker: number): Map<number, WorkerCell> {
    const found = this.#workers.get(worker);
    if (found !== undefined) return found;
    const cells = new Map<number, WorkerCell>();
    this.#workers.set(worker, cells);
    return cells;
  }

  #add(cells: Map<number, WorkerCell>, delta: CellDelta): void {
    let cell = cells.get(delta.id);
    if (cell === undefined) {
      if (delta.labels === null) return; // a batch of a worker already declared lost
      cell = { merged: this.#mergedCellOf(delta.labels), open: 0 };
      cell.merged.holders++;
      cells.set(delta.id, cell);
    }
    const { merged } = cell;
    merged.opened += delta.opened;
    merged.closed += delta.closed;
    merged.failed += delta.failed;
    merged.sentBytes += delta.sentBytes;
    merged.receivedBytes += delta.receivedBytes;
    merged.changedAtMs = this.#nowMs();
    cell.open += delta.opened - delta.closed;
  }

  #mergedCellOf(labels: readonly string[]): MergedCell {
    const text = labelsText(TCP_LABEL_NAMES, labels);
    const found = this.#merged.get(text);
    if (found !== undefined) return found;
    const cell: MergedCell = {
      key: text,
      labels: text,
      reporter: labels[0]!,
      opened: 0,
      closed: 0,
      failed: 0,
      sentBytes: 0,
      receivedBytes: 0,
      holders: 0,
      changedAtMs: 0,
    };
    this.#merged.set(text, cell);
    return cell;
  }

  #evict(): void {
    this.#sweptAtMs = this.#nowMs();
    const oldest = this.#sweptAtMs - this.#evictAfterMs;
    for (const cell of this.#merged.values()) {
      if (cell.holders === 0 && cell.changedAtMs <= oldest) this.#merged.delete(cell.key);
    }
  }

  #openSockets(cells: readonly MergedCell[]): MetricFamily {
    const open = new Map<string, number>([
      ['source', 0],
      ['destination', 0],
    ]);
    for (const cell of cells) open.set(cell.reporter, open.get(cell.reporter)! + cell.opened - cell.closed);
    const samples = [...open].map(([reporter, value]) => ({
      labels: labelsText(['reporter'], [reporter]),
      value,
    }));
    return { name: 'istio_tcp_sockets_open', help: 'TCP connections open now', type: 'gauge', samples };
  }

  #dropped(): MetricFamily {
    return {
      name: 'culvert_access_log_dropped_lines_total',
      help: 'Access log lines dropped because they came faster than they could be written',
      type: 'counter',
      samples: [{ labels: '', value: this.#droppedLines }],
    };
  }
}

function sampleOf(cell: MergedCell, counter: Counter): MetricSample {
  return { labels: cell.labels, value: cell[counter] };
}
