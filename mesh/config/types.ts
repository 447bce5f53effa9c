/** One option of a program. The key in the table is its name in camelCase; the flag is `--kebab-case`, the variable `<PREFIX>KEBAB_CASE`. */
export interface OptionSpec<Value> {
  /** How text becomes a value; throws an Error whose message completes "--flag …: ". */
  readonly parse: (text: string) => Value;
  /** Printed by `--help` as the flag's argument; null: a switch that takes none. */
  readonly metavar: string | null;
  /** Absent: the option must be given. */
  readonly fallback?: Value;
  readonly help: string;
  /** The default as it would be given, where the value itself is not readable. */
  readonly fallbackText?: string;
  /** Its environment variable, where it is not the derived one. */
  readonly env?: string;
}

/** A program's options by name. */
export type OptionTable = Readonly<Record<string, OptionSpec<unknown>>>;

/** The frozen object that a table parses to. */
export type OptionValues<Table extends OptionTable> = {
  readonly [Name in keyof Table]: Table[Name] extends OptionSpec<infer Value> ? Value : never;
};
