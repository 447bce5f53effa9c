import { flagOf, type OptionTable } from '../mesh/config/index.js';
import type { Command } from './command.js';

const SHORT: Readonly<Record<string, string>> = {
  '--output': '-o',
  '--namespace': '-n',
  '--mesh-namespace': '-i',
};

/** A completion script for bash, and for zsh by its bashcompinit: `source <(culvertctl completion)`. */
export function completionOf(
  commands: readonly Command[],
  optionsOf: (command: Command) => OptionTable,
): string {
  const cases = commands.map((command) => {
    const flags = Object.keys(optionsOf(command)).map(flagOf);
    const short = flags.flatMap((flag) => SHORT[flag] ?? []);
    return `    '${command.path}') words='${[...flags, '--help', ...short].join(' ')}' ;;`;
  });
  const firstWords = [...new Set([...commands.map(({ path }) => path.split(' ')[0]!), 'completion'])];
  const groups = firstWords.flatMap((first) => {
    const second = commands.flatMap(({ path }) =>
      path.startsWith(`${first} `) ? [path.slice(first.length + 1)] : [],
    );
    return second.length === 0 ? [] : [`    '${first}') words='${second.join(' ')}' ;;`];
  });
  return `# culvertctl: source <(culvertctl completion)
[ -n "\${ZSH_VERSION:-}" ] && autoload -U +X bashcompinit && bashcompinit
_culvertctl() {
  local words='' path="\${COMP_WORDS[1]}"
  case "\${COMP_WORDS[*]:1:2}" in
${commands
  .filter(({ path }) => path.includes(' '))
  .map(({ path }) => `    '${path}'*) path='${path}' ;;`)
  .join('\n')}
  esac
  case "$path" in
${cases.join('\n')}
${groups.join('\n')}
    *) [ "$COMP_CWORD" = 1 ] && words='${firstWords.join(' ')}' ;;
  esac
  [ "$COMP_CWORD" = 1 ] && words='${firstWords.join(' ')}'
  case "\${COMP_WORDS[COMP_CWORD-1]}" in
    -o|--output) words='table json' ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _culvertctl culvertctl
`;
}
