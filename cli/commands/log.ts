import { option } from '../../mesh/config/index.js';
import { command } from '../command.js';

export const log = command({
  path: 'log',
  summary: "Shows the agent's log level, or sets it while it runs.",
  options: {
    level: option.text({ help: 'The new level; none: show it.', metavar: 'LEVEL', fallback: '' }),
  },
  positional: 'level',
  examples: ['culvertctl log', 'culvertctl log debug'],
  async run({ level }, { agent }) {
    const answer =
      level === ''
        ? await agent.text('GET', '/logging')
        : await agent.text('POST', `/logging?level=${encodeURIComponent(level)}`);
    return { json: { level: answer.trim().split(' ').at(-1) }, tables: [], notes: [answer.trim()] };
  },
});
