import { setTimeout as sleep } from 'node:timers/promises';
import { type AdminDeps, type AdminServers, startAdmin } from '../mesh/admin/index.js';
import type { WorkerPool } from '../mesh/io/index.js';
import { LOG_LEVELS, type Log, type LogLevel } from '../mesh/log/index.js';
import type { AgentOptions } from './options.js';
import type { FromWorker, ToWorker } from './tunnel/index.js';
import type { Workers } from './workers.js';

export interface AdminParts {
  readonly options: AgentOptions;
  readonly log: Log;
  readonly workers: Workers;
  readonly pool: WorkerPool<ToWorker, FromWorker>;
  /** What the agent is not ready for. */
  readonly pending: AdminDeps['pending'];
  readonly metrics: AdminDeps['metrics'];
  /** Parts of /config_dump, by name. */
  readonly dumps: AdminDeps['config'];
}

/** What the agent's HTTP servers show and do. */
export function adminDeps({ options, log, workers, pool, pending, metrics, dumps }: AdminParts): AdminDeps {
  return {
    metrics,
    pending,
    config: {
      options: () => ({ ...options }),
      ...dumps,
      workers: async () =>
        (await workers.reports()).map((report) => report && { ...report, connections: undefined }),
    },
    connections: async () => (await workers.reports(true)).flatMap((report) => report?.connections ?? []),
    logLevel: {
      levels: LOG_LEVELS,
      get: () => log.level,
      set: (level) => {
        log.level = level;
        workers.setLogLevel(level as LogLevel);
      },
    },
    commands: {
      'workers/restart': {
        usage: 'worker=N',
        run: (query) => restartWorker(query.get('worker'), pool, log),
      },
    },
    onError: (error, what) => log.warn({ err: error }, what),
  };
}

const RETRY_MS = 50;

/** Opens the agent's ports. One that another agent has just freed may be in use for a moment. Null: over before that. */
export async function openAdmin(
  { metricsListen: metrics, readinessListen: readiness, adminListen: admin }: AgentOptions,
  deps: AdminDeps,
  { patienceMs, isOver }: { readonly patienceMs: number; readonly isOver: () => boolean },
): Promise<AdminServers | null> {
  const untilMs = performance.now() + patienceMs;
  while (!isOver()) {
    try {
      return await startAdmin({ metrics, readiness, admin }, deps);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || performance.now() >= untilMs) throw error;
      await sleep(RETRY_MS);
    }
  }
  return null;
}

/** For people and tests: a data path thread is ended as if it had crashed. Its connections are reset, a new one takes its place. */
async function restartWorker(
  text: string | null,
  pool: WorkerPool<ToWorker, FromWorker>,
  log: Log,
): Promise<string> {
  const worker = /^\d+$/.test(text ?? '') ? Number(text) : Number.NaN;
  if (!(worker < pool.size))
    throw new RangeError(`worker must be 0 to ${pool.size - 1}, not ${JSON.stringify(text)}`);
  log.warn({ worker }, 'worker is ended by an admin command');
  await pool.terminate(worker);
  return `worker ${worker} was ended and is started again`;
}
