import { MeshError } from '../common/errors.js';

/** Options that cannot be used. `data.problems` holds every problem, one line each, as does the message. */
export class ConfigError extends MeshError<'CONFIG_INVALID'> {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super('CONFIG_INVALID', problems.join('\n'), { problems });
    this.problems = problems;
  }
}
