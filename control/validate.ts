import { option, runCommand } from '../mesh/config/index.js';
import { type ManifestProblem, validateManifests } from '../mesh/manifests/index.js';
import { decodeObject } from './model/index.js';
import { ENV_PREFIX } from './options.js';

/** `culvertctl validate`: reads manifests as the controller does. Exit code 1 where anything is wrong. */
await runCommand(
  {
    options: {
      manifests: option.text({ metavar: 'DIR', help: 'Folder of manifests, or one file.' }),
      output: option.choice({ help: 'How problems are printed.', fallback: 'text', of: ['text', 'json'] }),
    },
    usage: 'node dist/control/validate.js --manifests DIR [--output json]',
    envPrefix: ENV_PREFIX,
    failure: 'nothing was validated',
  },
  async ({ manifests, output }) => {
    const report = await validateManifests(manifests, decodeObject);
    const { objects, problems } = report;
    if (output === 'json') process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    else
      process.stdout.write(
        `${[...problems.map(lineOf), `${objects} objects, ${problems.length} problems`].join('\n')}\n`,
      );
    return problems.length === 0 ? 0 : 1;
  },
);

/** `file:line: Kind name: field: reason` */
function lineOf({ file, line, kind, name, field, reason }: ManifestProblem): string {
  const object = [kind, name].filter((part) => part !== '').join(' ');
  return [line > 0 ? `${file}:${line}` : file, object, field, reason]
    .filter((part) => part !== '')
    .join(': ');
}
