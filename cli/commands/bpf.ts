import { readDump } from '../agent-dump.js';
import { command } from '../command.js';

export const bpf = command({
  path: 'bpf',
  summary:
    "The agent's kernel side: programs, maps and their fill, counters of refused connections by reason.",
  options: {},
  examples: ['culvertctl bpf', 'culvertctl bpf -o json'],
  async run(_values, { agent }) {
    const { capture } = await readDump(agent, 'capture');
    const counters = Object.entries(capture.refusals).map(([name, count]) => [name, count]);
    const features = capture.features.map((feature) => [feature.name, feature.present ? 'yes' : 'no']);
    return {
      json: capture,
      tables: [
        { title: 'counters', rows: [['COUNTER', 'SINCE THE MAPS WERE MADE'], ...counters] },
        { title: 'kernel', rows: [['FEATURE', 'PRESENT'], ...features] },
      ],
    };
  },
});
