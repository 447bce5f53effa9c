import { messageOf } from '../common/errors.js';
import { ConfigError } from './errors.js';
import { helpOf, parseOptions } from './parse.js';
import type { OptionTable, OptionValues } from './types.js';

/** How a program is called. */
export interface ProgramSpec<Table extends OptionTable> {
  readonly options: Table;
  /** First line of `--help`. */
  readonly usage: string;
  /** Of its environment variables. */
  readonly envPrefix: string;
  /** As `ParseInput.validate`. */
  readonly validate?: (values: OptionValues<Table>) => readonly string[];
  /** Stands before the message where it fails. */
  readonly failure: string;
}

/** A program that runs until it is told to stop. */
export interface Daemon {
  /** Resolves when it is at work. */
  start(): Promise<void>;
  /** May come while `start` is under way. */
  stop(): Promise<void>;
  readonly log: {
    info(data: object, message: string): void;
    error(data: object, message: string): void;
  };
}

/** Runs a command to its end. Exit codes: 0 done, 1 failed, 2 options; `run` may return its own. */
export async function runCommand<const Table extends OptionTable>(
  spec: ProgramSpec<Table>,
  run: (options: OptionValues<Table>) => Promise<number | undefined> | number | undefined,
): Promise<void> {
  try {
    const options = readOptions(spec);
    if (options !== null) process.exitCode = (await run(options)) ?? 0;
  } catch (error) {
    process.exitCode = failed(spec, error);
  }
}

/** Runs until SIGTERM or SIGINT. Exit codes: 0 stopped, 1 failed, 2 options. */
export async function runDaemon<const Table extends OptionTable>(
  spec: ProgramSpec<Table>,
  make: (options: OptionValues<Table>) => Daemon,
): Promise<void> {
  try {
    const options = readOptions(spec);
    if (options === null) return;
    const daemon = make(options);
    stopOnSignal(daemon);
    await daemon.start();
  } catch (error) {
    process.exit(failed(spec, error));
  }
}

/** Null: help was asked for and given. */
function readOptions<Table extends OptionTable>(spec: ProgramSpec<Table>): OptionValues<Table> | null {
  const { options, usage, envPrefix, validate } = spec;
  const argv = process.argv.slice(2);
  if (argv.includes('--help')) {
    process.stdout.write(helpOf(options, usage, envPrefix));
    return null;
  }
  return parseOptions(options, {
    argv,
    env: process.env,
    envPrefix,
    ...(validate === undefined ? {} : { validate }),
  });
}

/** Tells why; gives the exit code. */
function failed(spec: { readonly failure: string }, error: unknown): number {
  const isUsage = error instanceof ConfigError;
  const message = isUsage
    ? `${messageOf(error)}\n(--help lists all options)`
    : `${spec.failure}: ${messageOf(error)}`;
  process.stderr.write(`${message}\n`);
  return isUsage ? 2 : 1;
}

/** Once: a second signal of the same kind has its default action, so that a program that hangs can be ended. */
function stopOnSignal(daemon: Daemon): void {
  let isStopping = false;
  const stop = (signal: string): void => {
    if (isStopping) return;
    isStopping = true;
    daemon.log.info({ signal }, 'stopping');
    daemon.stop().then(
      () => process.exit(0),
      (error) => {
        daemon.log.error({ err: error }, 'stopping failed');
        process.exit(1);
      },
    );
  };
  process.once('SIGTERM', stop).once('SIGINT', stop);
}
