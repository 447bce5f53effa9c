import { type AgentDump, readDump } from '../agent-dump.js';
import { command } from '../command.js';
import type { Rows } from '../output.js';

type Capture = AgentDump['capture'];

export const bpf = command({
  path: 'bpf',
  summary:
    "The agent's kernel side: programs at their hooks, maps and their fill, counters of refused connections by reason. Exit code 1 where a program is not in force.",
  options: {},
  examples: ['culvertctl bpf', 'culvertctl bpf -o json'],
  async run(_values, { agent }) {
    const { capture } = await readDump(agent, 'capture');
    const { refusals, features, links, trouble } = capture;
    const dead = links.filter(({ isLive }) => !isLive);
    const counters = Object.entries(refusals).map(([name, count]) => [name, count]);
    return {
      json: capture,
      tables: [
        { title: 'programs', rows: programsOf(capture) },
        { title: 'maps', rows: mapsOf(capture) },
        { title: 'counters', rows: [['COUNTER', 'SINCE THE MAPS WERE MADE'], ...counters] },
        {
          title: 'kernel',
          rows: [
            ['FEATURE', 'PRESENT'],
            ...features.map(({ name, present }) => [name, present ? 'yes' : 'no']),
          ],
        },
      ],
      notes: [
        ...(trouble === '' ? [] : [`nothing is enrolled: ${trouble}`]),
        ...(links.length === 0 ? ['no program of ours is at a hook, or none could be looked at'] : []),
        ...dead.map(({ hook }) => `${hook}: the cgroup that it was attached to is gone; restart the agent`),
      ],
      exitCode: trouble === '' && links.length > 0 && dead.length === 0 ? 0 : 1,
    };
  },
});

function programsOf({ links, programs }: Capture): Rows {
  const byHook = new Map(programs.map((program) => [program.hook, program]));
  return [
    ['HOOK', 'PROGRAM', 'ID', 'TAG', 'LINK', 'IN FORCE'],
    ...links.map(({ hook, id, programId, isLive }) => {
      const program = byHook.get(hook);
      return [hook, program?.name, programId, program?.tag, id, isLive ? 'yes' : 'no'];
    }),
  ];
}

function mapsOf({ maps }: Capture): Rows {
  return [
    ['MAP', 'ID', 'ENTRIES', 'CAPACITY', 'FILL'],
    ...maps.map(({ name, id, entries, capacity }) => {
      const fill = entries === null || capacity === 0 ? null : `${Math.round((100 * entries) / capacity)}%`;
      return [name, id, entries, capacity === 0 ? null : capacity, fill];
    }),
  ];
}
