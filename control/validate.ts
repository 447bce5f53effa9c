import { printable } from '../mesh/common/printable.js';
import { option, runCommand } from '../mesh/config/index.js';
import { type ManifestProblem, validateManifests } from '../mesh/manifests/index.js';
import { decodeObject, type Report } from './model/index.js';
import { ENV_PREFIX, OPTIONS } from './options.js';
import { reportsOf } from './reports.js';
import { TRANSLATE_DEFAULTS } from './translate/index.js';

/** `culvertctl validate`: reads manifests as the controller does. Exit code 1 where anything is wrong; what is only not in force is said, too. */
await runCommand(
  {
    options: {
      manifests: option.text({ metavar: 'DIR', help: 'Folder of manifests, or one file.' }),
      rootNamespace: OPTIONS.rootNamespace,
      clusterDomain: OPTIONS.clusterDomain,
      output: option.choice({ help: 'How problems are printed.', fallback: 'text', of: ['text', 'json'] }),
    },
    usage: 'node dist/control/validate.js --manifests DIR [--output json]',
    envPrefix: ENV_PREFIX,
    failure: 'nothing was validated',
  },
  async ({ manifests, output, ...places }) => {
    const { objects, problems, notices } = await validateManifests(manifests, decodeObject);
    const reports = reportsOf(objects, { ...TRANSLATE_DEFAULTS, ...places });
    const summary = `${objects.size} objects, ${problems.length} problems, ${notices.length} notices, ${reports.length} not in force as written`;
    if (output === 'json')
      process.stdout.write(
        `${JSON.stringify({ objects: objects.size, problems, notices, reports }, null, 2)}\n`,
      );
    else
      process.stdout.write(
        `${[...problems.map(lineOf), ...notices.map(noticeOf), ...reports.map(noteOf), summary].map(printable).join('\n')}\n`,
      );
    return problems.length === 0 ? 0 : 1;
  },
);

/** `file:line: Kind name: field: reason: effect` */
function lineOf({ file, line, kind, name, field, reason, effect }: ManifestProblem): string {
  const object = [kind, name].filter((part) => part !== '').join(' ');
  return [line > 0 ? `${file}:${line}` : file, object, field, reason, effect]
    .filter((part) => part !== '')
    .join(': ');
}

function noticeOf(notice: ManifestProblem): string {
  return `notice: ${lineOf(notice)}`;
}

/** `note: Kind/namespace/name: field: reason: effect` */
function noteOf({ object, field, reason, effect }: Report): string {
  return ['note', object, field, reason, effect].filter((part) => part !== '').join(': ');
}
