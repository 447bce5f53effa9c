import type { OptionTable, OptionValues } from '../mesh/config/index.js';
import type { Target } from './cluster/target.js';
import type { Rows } from './output.js';

/** Where a command writes; a test gives its own. */
export interface Terminal {
  /** Standard output. */
  out(text: string): void;
  /** Standard error. */
  err(text: string): void;
  /** Columns of the terminal; null: no terminal, nothing is cut. */
  readonly columns: number | null;
}

export interface CommandDeps extends Target {
  readonly terminal: Terminal;
  /** How to print, for a command that prints by itself. */
  readonly output: 'table' | 'json';
  /** Runs another program of this installation with our terminal; resolves to its exit code. */
  readonly runProgram: (script: string, argv: readonly string[]) => Promise<number>;
}

/** What a command found: `-o json` prints `json`, else the tables and notes. */
export interface Result {
  readonly json: unknown;
  /** Titled where there are several. */
  readonly tables: readonly { readonly title?: string; readonly rows: Rows }[];
  /** Lines below the tables. */
  readonly notes?: readonly string[];
  /** @default 0 */
  readonly exitCode?: number;
}

/** One subcommand. `run` returns what to print, or, where it did all by itself, an exit code. */
export interface Command {
  /** `authz explain`. */
  readonly path: string;
  readonly summary: string;
  readonly options: OptionTable;
  /** Name of the option that an argument without a flag means. */
  readonly positional?: string;
  /** It asks neither agent nor controller: it works on what is on this machine. */
  readonly isLocal?: true;
  /** Every agent gives the same answer: on a cluster, whichever is ready. */
  readonly isAnyNode?: true;
  readonly examples: readonly string[];
  /** Beside the agent. */
  readonly asksController?: true;
  /** Not as `-o` says. */
  readonly printsItself?: true;
  run(values: Readonly<Record<string, unknown>>, deps: CommandDeps): Promise<Result | number>;
}

/** Keeps the types of the table's values inside `run`, and gives up on them outside: commands are listed together. */
export function command<const Table extends OptionTable>(spec: {
  readonly path: string;
  readonly summary: string;
  readonly options: Table;
  readonly positional?: string & keyof Table;
  readonly isLocal?: true;
  readonly isAnyNode?: true;
  readonly examples: readonly string[];
  readonly asksController?: true;
  readonly printsItself?: true;
  run(values: OptionValues<Table>, deps: CommandDeps): Promise<Result | number>;
}): Command {
  return {
    ...spec,
    run: (values, deps) => spec.run(values as OptionValues<Table>, deps),
  };
}
