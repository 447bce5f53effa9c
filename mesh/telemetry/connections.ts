import { type AccessLogFormat, formatAccessLog } from './access-log.js';
import { type Cell, CellTable, type CellTableOptions } from './cell-table.js';
import { PolicyDenialCounts } from './policy-denials.js';
import type { ConnectionInfo, PolicyVerdict, ResponseFlag, TelemetryBatch } from './types.js';

export interface ConnectionTelemetryOptions extends CellTableOptions {
  /** Null: no access log. */
  readonly accessLog: AccessLogFormat | null;
  /** Also write a line when a connection opens. @default false */
  readonly logOpened?: boolean;
  /** Log text held until main fetches it; what comes on top is dropped and counted. @default 4194304 */
  readonly maxBufferedLogChars?: number;
}

export interface ConnectionTelemetryDeps {
  /** Monotonic; read at the opening and the end of connections (`Reactor.nowMs` will do). */
  readonly nowMs: () => number;
  /** Milliseconds since the epoch. */
  readonly wallClockMs: () => number;
}

export interface ConnectionFailure {
  readonly flag: Exclude<ResponseFlag, '-'>;
  readonly message: string;
  /** It was policies that ended it, and not those that let it in. */
  readonly verdict?: PolicyVerdict;
}

/**
 * Metrics and access log of one worker's connections. Everything is counted in place and fetched by `takeBatch`, which the worker
 * calls on a timer and hands to main's `TcpMetrics`. Cost per connection: see README.
 */
export class ConnectionTelemetry {
  readonly #accessLog: AccessLogFormat | null;
  readonly #maxBufferedLogChars: number;
  readonly #deps: ConnectionTelemetryDeps;
  readonly #cells: CellTable;
  readonly #denials = new PolicyDenialCounts();
  #lines = '';
  #droppedLines = 0;
  /** Also write a line when a connection opens (log level debug); may change at run time. */
  logOpened: boolean;

  constructor(options: ConnectionTelemetryOptions, deps: ConnectionTelemetryDeps) {
    this.#accessLog = options.accessLog;
    this.#maxBufferedLogChars = options.maxBufferedLogChars ?? 4 * 1024 * 1024;
    this.logOpened = options.logOpened ?? false;
    this.#deps = deps;
    this.#cells = new CellTable(options);
  }

  /** A connection was accepted and allowed. Call `closed` on the record exactly when it ends, however it ends. */
  opened(info: ConnectionInfo): ConnectionRecord {
    const cell = this.#cells.cellOf(info, '-');
    cell.opened++;
    if (info.verdict !== undefined && info.verdict.dryRun.length > 0) this.#denials.add(info.verdict);
    if (this.logOpened) this.#log('debug', 'connection opened', info, null, null);
    return new ConnectionRecord(cell, info, this.#deps.nowMs(), this);
  }

  /** A connection that was refused before it was opened: counted as failed, one warning line. */
  refused(info: ConnectionInfo, failure: ConnectionFailure): void {
    this.#cells.cellOf(info, failure.flag).failed++;
    this.#countDenial(info, failure);
    this.#log('warn', 'connection failed', info, null, failure);
  }

  /** What happened since the last call; null if nothing did. */
  takeBatch(): TelemetryBatch | null {
    const { cells, evicted } = this.#cells.takeDeltas(this.#deps.nowMs());
    const policyDenials = this.#denials.take();
    const batch = { cells, evicted, policyDenials, lines: this.#lines, droppedLines: this.#droppedLines };
    this.#lines = '';
    this.#droppedLines = 0;
    const isEmpty =
      cells.length + evicted.length + policyDenials.length === 0 &&
      batch.lines === '' &&
      batch.droppedLines === 0;
    return isEmpty ? null : batch;
  }

  /** For `ConnectionRecord` only. */
  finish(
    record: ConnectionRecord,
    openedAtMs: number,
    failure: ConnectionFailure | null,
    reason: string | null,
  ): void {
    if (failure !== null) {
      this.#cells.cellOf(record.info, failure.flag).failed++;
      this.#countDenial(record.info, failure);
    }
    const durationMs = this.#deps.nowMs() - openedAtMs;
    const transfer = { sentBytes: record.sentBytes, receivedBytes: record.receivedBytes, durationMs };
    const level = failure === null ? 'info' : 'error';
    this.#log(level, 'connection complete', record.info, transfer, failure, reason);
  }

  #countDenial(info: ConnectionInfo, { flag, verdict = info.verdict }: ConnectionFailure): void {
    if (flag === 'DENY' && verdict !== undefined) this.#denials.add(verdict);
  }

  #log(
    level: 'debug' | 'info' | 'warn' | 'error',
    message: 'connection opened' | 'connection complete' | 'connection failed',
    info: ConnectionInfo,
    transfer: { sentBytes: number; receivedBytes: number; durationMs: number } | null,
    failure: ConnectionFailure | null,
    reason: string | null = null,
  ): void {
    if (this.#accessLog === null || !isWritten(level, info)) return;
    if (this.#lines.length >= this.#maxBufferedLogChars) {
      this.#droppedLines++;
      return;
    }
    const error = failure?.message ?? null;
    const verdict = failure?.verdict ?? info.verdict ?? null;
    const wallClockMs = this.#deps.wallClockMs();
    const entry = { level, message, info, transfer, verdict, error, reason, wallClockMs };
    this.#lines += formatAccessLog(entry, this.#accessLog);
  }
}

const RANKS = { debug: 0, info: 1, warn: 2, error: 3 };

/** What the workload on our side has of the access log: its namespace's level, and a sample of what ended well. */
function isWritten(level: keyof typeof RANKS, info: ConnectionInfo): boolean {
  const { workload } = info.reporter === 'source' ? info.source : info.destination;
  const rules = workload?.accessLog;
  if (rules === undefined) return true;
  if (rules.disabled || RANKS[level] < RANKS[rules.level]) return false;
  return RANKS[level] > RANKS.info || Math.random() * 1000 < rules.samplingPerMille;
}

/** One open connection's account. */
export class ConnectionRecord {
  readonly info: ConnectionInfo;
  /** Server to client so far. */
  sentBytes = 0;
  /** Client to server so far. */
  receivedBytes = 0;
  readonly #cell: Cell;
  readonly #openedAtMs: number;
  readonly #telemetry: ConnectionTelemetry;
  #isClosed = false;

  /** Made by `ConnectionTelemetry.opened`. */
  constructor(cell: Cell, info: ConnectionInfo, openedAtMs: number, telemetry: ConnectionTelemetry) {
    this.info = info;
    this.#cell = cell;
    this.#openedAtMs = openedAtMs;
    this.#telemetry = telemetry;
  }

  /** Bytes went from server to client. */
  addSent(bytes: number): void {
    this.sentBytes += bytes;
    this.#cell.sentBytes += bytes;
  }

  /** Bytes went from client to server. */
  addReceived(bytes: number): void {
    this.receivedBytes += bytes;
    this.#cell.receivedBytes += bytes;
  }

  /** It ended: cleanly (null) or by `failure`. `reason`: why we ended it, where neither side did. Further calls do nothing. */
  closed(failure: ConnectionFailure | null, reason: string | null = null): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cell.closed++;
    this.#telemetry.finish(this, this.#openedAtMs, failure, reason);
  }
}
