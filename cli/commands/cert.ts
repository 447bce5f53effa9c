import { option } from '../../mesh/config/index.js';
import { readDump } from '../agent-dump.js';
import { command } from '../command.js';
import { formatAge } from '../output.js';

export const cert = command({
  path: 'cert',
  summary:
    'The certificates that this agent holds for its pods: identities, validity, what renewal is doing.',
  options: {
    identity: option.text({ help: 'Only identities that contain this text.', metavar: 'TEXT', fallback: '' }),
  },
  positional: 'identity',
  examples: ['culvertctl cert', 'culvertctl cert /ns/shop/', 'culvertctl cert -o json'],
  async run({ identity }, { agent }) {
    const { certificates } = await readDump(agent, 'certificates');
    const shown = certificates.filter((one) => one.identity.includes(identity));
    const now = Date.now();
    const rows = shown.map((one) => [
      one.identity,
      one.state,
      one.notAfter === null ? null : formatAge(Date.parse(one.notAfter) - now),
      one.serial,
      one.activity,
      one.lastError,
    ]);
    const isAllValid = shown.every((one) => one.notAfter !== null && Date.parse(one.notAfter) > now);
    return {
      json: shown,
      tables: [{ rows: [['IDENTITY', 'STATE', 'EXPIRES IN', 'SERIAL', 'ACTIVITY', 'LAST ERROR'], ...rows] }],
      exitCode: isAllValid ? 0 : 1,
    };
  },
});
