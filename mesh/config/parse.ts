import { formatSocketAddress, type SocketAddress } from '../common/address.js';
import { messageOf } from '../common/errors.js';
import { ConfigError } from './errors.js';
import type { OptionSpec, OptionTable, OptionValues } from './types.js';

export interface ParseInput<Table extends OptionTable> {
  /** Without node and script: `process.argv.slice(2)`. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Of the derived environment variables: `CULVERT_`. */
  readonly envPrefix: string;
  /** Rules over several options: called once all are readable, returns one line per problem. */
  readonly validate?: (values: OptionValues<Table>) => readonly string[];
}

/**
 * Reads a program's options: flag before environment before default. Reports every problem at once.
 * @throws ConfigError
 */
export function parseOptions<const Table extends OptionTable>(
  table: Table,
  input: ParseInput<Table>,
): OptionValues<Table> {
  const problems: string[] = [];
  const flags = readFlags(table, input.argv, problems);
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(table)) {
    const variable = variableOf(name, spec, input.envPrefix);
    const fromEnv = input.env[variable];
    const text = flags.get(name) ?? (fromEnv === '' ? undefined : fromEnv);
    const source = flags.has(name) ? flagOf(name) : variable;
    if (text !== undefined) values[name] = tryParse(spec, text, source, problems);
    else if ('fallback' in spec) values[name] = spec.fallback;
    else problems.push(`${flagOf(name)} (or ${variable}) is required: ${spec.help}`);
  }
  const options = values as OptionValues<Table>;
  if (problems.length === 0) problems.push(...(input.validate?.(options) ?? []));
  if (problems.length > 0) throw new ConfigError(problems);
  return Object.freeze(options);
}

/** What `--help` prints. */
export function helpOf(table: OptionTable, usage: string, envPrefix: string): string {
  const rows = Object.entries(table).map(([name, spec]) => {
    const left = `  ${flagOf(name)}${spec.metavar === null ? '' : ` ${spec.metavar}`}`;
    return `${left}\n      ${spec.help} ${defaultOf(spec)} [${variableOf(name, spec, envPrefix)}]`;
  });
  return [`Usage: ${usage}`, '', ...rows, ''].join('\n');
}

function readFlags(table: OptionTable, argv: readonly string[], problems: string[]): Map<string, string> {
  const byFlag = new Map(Object.keys(table).map((name) => [flagOf(name), name]));
  const flags = new Map<string, string>();
  for (let i = 0; i < argv.length; i++) {
    const [flag, ...rest] = argv[i]!.split('=');
    const name = byFlag.get(flag!);
    if (name === undefined) {
      problems.push(`${argv[i]} is not an option of this program`);
    } else if (rest.length > 0) {
      flags.set(name, rest.join('='));
    } else if (table[name]!.metavar === null) {
      flags.set(name, 'true');
    } else if (i + 1 < argv.length) {
      flags.set(name, argv[++i]!);
    } else {
      problems.push(`${flag} needs a value`);
    }
  }
  return flags;
}

function tryParse(spec: OptionSpec<unknown>, text: string, source: string, problems: string[]): unknown {
  try {
    return spec.parse(text);
  } catch (error) {
    problems.push(`${source}: ${messageOf(error)}`);
    return undefined;
  }
}

function defaultOf(spec: OptionSpec<unknown>): string {
  if (!('fallback' in spec)) return '(required)';
  return `(default ${spec.fallbackText ?? textOf(spec.fallback)})`;
}

function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.join(',');
  if (typeof value === 'object' && value !== null) return formatSocketAddress(value as SocketAddress);
  return value === '' ? 'none' : String(value);
}

/** `--kebab-case` of an option's name. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function variableOf(name: string, spec: OptionSpec<unknown>, prefix: string): string {
  return spec.env ?? prefix + flagOf(name).slice(2).replaceAll('-', '_').toUpperCase();
}
