import { type DestinationStream, type Logger, pino } from 'pino';

/** A pino logger: `log.info({ workload }, 'what happened')`. */
export type Log = Logger;

/** Ordered, loudest last; `silent` writes nothing. */
export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface LogOptions {
  readonly level: LogLevel;
  /** The program: `controller`, `agent`. Rooms make their own with `log.child({ room: 'xds' })`. */
  readonly component: string;
}

export interface LogDeps {
  /** Gets one JSON line per call; default: stdout, written synchronously (lines survive a crash). */
  readonly destination?: DestinationStream;
}

/**
 * One JSON object per line: `level` as a word, `time` as ISO 8601, `component`, `msg`, then the call's own fields; errors under `err`. A level
 * set on it later holds for the children it has, too.
 */
export function createLog(options: LogOptions, deps: LogDeps = {}): Log {
  const children: Log[] = [];
  const log = pino(
    {
      level: options.level,
      base: { component: options.component },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      onChild: (child) => {
        children.push(child);
      },
    },
    deps.destination ?? pino.destination({ dest: 1, sync: true }),
  );
  log.on('level-change', (level, _value, _before, _valueBefore, changed) => {
    if (changed === log) for (const child of children) child.level = level;
  });
  return log;
}
