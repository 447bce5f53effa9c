export { ConfigError } from './errors.js';
export { option } from './kinds.js';
export { meshOptions } from './mesh-options.js';
export { flagOf, helpOf, type ParseInput, parseOptions } from './parse.js';
export { type Daemon, type ProgramSpec, runCommand, runDaemon } from './run.js';
export type { OptionSpec, OptionTable, OptionValues } from './types.js';
