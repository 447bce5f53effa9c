import { messageOf } from '../mesh/common/errors.js';
import { printable } from '../mesh/common/printable.js';
import {
  ConfigError,
  flagOf,
  helpOf,
  type OptionTable,
  type OptionValues,
  option,
  parseOptions,
} from '../mesh/config/index.js';
import { localTarget, openTarget, targetOptions } from './cluster/target.js';
import type { Command, CommandDeps, Result } from './command.js';
import { commands } from './commands/index.js';
import { completionOf } from './completion.js';
import { CliError } from './errors.js';
import { renderTable } from './output.js';

const envPrefix = 'CULVERTCTL_';

const outputOption = {
  output: option.choice({ help: 'How to print (-o).', fallback: 'table', of: ['table', 'json'] }),
};

type CommonValues = OptionValues<typeof targetOptions & typeof outputOption>;

/** A command's own options, and of the common ones those that it has a use for. */
function optionsOf({ options, isLocal, asksController, printsItself }: Command): OptionTable {
  const { controller, ...target } = targetOptions;
  return {
    ...options,
    ...(isLocal ? {} : target),
    ...(asksController ? { controller } : {}),
    ...(printsItself ? {} : outputOption),
  };
}

/** Of common options that a command does not have. */
const FALLBACKS = { controller: targetOptions.controller.fallback!, output: outputOption.output.fallback! };

/** Runs one command line (without node and script); resolves to the exit code. What goes wrong is one line on standard error. */
export async function runCli(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  deps: Pick<CommandDeps, 'terminal' | 'runProgram'>,
): Promise<number> {
  const { terminal } = deps;
  const words = argv.map(longForm);
  const found = findCommand(words);
  if (found === null) return showUsage(words, terminal);
  const { command, rest } = found;
  if (rest.includes('--help')) {
    terminal.out(commandHelp(command));
    return 0;
  }
  try {
    const input = { argv: withPositional(command, rest), env, envPrefix };
    const values = { ...FALLBACKS, ...parseOptions(optionsOf(command), input) } as CommonValues;
    const { output } = values;
    const { isLocal, isAnyNode = false } = command;
    const target = isLocal ? localTarget() : await openTarget(values, { env, isAnyNode });
    try {
      const result = await command.run(values, { ...deps, ...target, output });
      return typeof result === 'number' ? result : print(result, output, terminal);
    } finally {
      target.cluster?.close();
    }
  } catch (error) {
    if (error instanceof ConfigError) {
      terminal.err(`${messageOf(error)}\nculvertctl ${command.path} --help lists the options\n`);
      return 2;
    }
    if (!(error instanceof CliError)) throw error;
    terminal.err(`${printable(messageOf(error))}\n`);
    return 1;
  }
}

/** The longest path that the words begin with; shared options may stand before it. */
function findCommand(words: readonly string[]): { command: Command; rest: string[] } | null {
  const start =
    wordsOf(words, { ...targetOptions, ...outputOption }).find(({ isValue }) => !isValue)?.at ?? words.length;
  const [before, after] = [words.slice(0, start), words.slice(start)];
  for (const length of [2, 1]) {
    const path = after.slice(0, length).join(' ');
    const command = commands.find((known) => known.path === path);
    if (command !== undefined) return { command, rest: [...before, ...after.slice(length)] };
  }
  return null;
}

const SHORT: Readonly<Record<string, string>> = {
  '-o': '--output',
  '-n': '--namespace',
  '-i': '--mesh-namespace',
  '-h': '--help',
};

/** `-n shop`, `-nshop` and `-n=shop` are `--namespace=shop`. */
function longForm(word: string): string {
  const long = SHORT[word.slice(0, 2)];
  if (long === undefined || word.startsWith('--')) return word;
  return word.length === 2 ? long : `${long}=${word.slice(2).replace(/^=/, '')}`;
}

/** The words that are no flags, and whether each is the value of the flag before it. */
function wordsOf(
  words: readonly string[],
  table: OptionTable,
): { readonly at: number; readonly isValue: boolean }[] {
  const takesValue = new Set(
    Object.keys(table)
      .filter((name) => table[name]!.metavar !== null)
      .map(flagOf),
  );
  return words.flatMap((word, at) => {
    const before = words[at - 1] ?? '';
    const isValue = takesValue.has(before) && !takesValue.has(words[at - 2] ?? '');
    return word.startsWith('-') && !isValue ? [] : [{ at, isValue }];
  });
}

/** The first word that is neither a flag nor a flag's value is the value of the command's positional option. */
function withPositional(command: Command, rest: readonly string[]): readonly string[] {
  const { positional } = command;
  const place = wordsOf(rest, optionsOf(command)).find(({ isValue }) => !isValue)?.at;
  if (positional === undefined || place === undefined) return rest;
  return [...rest.slice(0, place), `--${positional}`, ...rest.slice(place)];
}

function print(result: Result, output: 'table' | 'json', terminal: CommandDeps['terminal']): number {
  if (output === 'json') {
    terminal.out(`${JSON.stringify(result.json, null, 2)}\n`);
  } else {
    const texts = result.tables.map(
      ({ title, rows }) => (title === undefined ? '' : `${title}\n`) + renderTable(rows, terminal.columns),
    );
    terminal.out(
      [...texts, ...(result.notes ?? []).map((note) => `${printable(note)}\n`)].join(
        texts.length > 1 ? '\n' : '',
      ),
    );
  }
  return result.exitCode ?? 0;
}

function showUsage(words: readonly string[], terminal: CommandDeps['terminal']): number {
  if (words[0] === 'completion') {
    terminal.out(completionOf(commands, optionsOf));
    return 0;
  }
  const rows = [
    ...commands.map(({ path, summary }) => [`  ${path}`, summary]),
    ['  completion', 'Prints what a bash or zsh needs to complete command lines.'],
  ];
  const usage = `Usage: culvertctl <command> [options]\n\n${renderTable(rows, null)}\nculvertctl <command> --help shows options and examples.\n`;
  const isWanted = words.length === 0 || words[0] === '--help' || words[0] === 'help';
  if (isWanted) terminal.out(usage);
  else terminal.err(`${words.slice(0, 2).join(' ')} is no command\n\n${usage}`);
  return isWanted ? 0 : 2;
}

function commandHelp(command: Command): string {
  const argument = command.positional === undefined ? '' : ` [${command.positional.toUpperCase()}]`;
  const usage = `culvertctl ${command.path}${argument} [options]\n\n${command.summary}`;
  const examples = command.examples.map((example) => `  ${example}\n`).join('');
  return `${helpOf(optionsOf(command), usage, envPrefix)}\nExamples:\n${examples}`;
}
