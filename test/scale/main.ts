// `npm run scale`: a controller with 1,000 agents and 10,000 pods of a real API server; see README.md.
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { FULL_SCALE, SHORT_SCALE } from './population.js';
import { formatTable, isMet } from './report.js';
import { PHASES, type Phase, ScaleRun } from './scale.js';

const USAGE = `npm run scale [-- --short] [--until PHASE] [--json FILE] [--node-flags FLAGS] [--agents N] …
  --short             50 agents, 500 pods: shows that everything works
  --until PHASE       ends after ${PHASES.join(', ')}
  --json FILE         writes the rows there as JSON, too
  --node-flags FLAGS  of the controller's node, as "--cpu-prof --cpu-prof-dir=/tmp/p"
  --set NAME=N        another size: ${Object.keys(FULL_SCALE).join(', ')}
`;

const started = performance.now();

function say(line: string): void {
  process.stderr.write(`[${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s] ${line}\n`);
}

try {
  const { values } = parseArgs({
    options: {
      short: { type: 'boolean', default: false },
      until: { type: 'string' },
      json: { type: 'string' },
      'node-flags': { type: 'string', default: '' },
      set: { type: 'string', multiple: true, default: [] },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) process.stdout.write(USAGE);
  else {
    const sizes = Object.fromEntries(
      values.set.map((text) => [text.split('=')[0], Number(text.split('=')[1])]),
    );
    const until = values.until as Phase | undefined;
    const nodeFlags = values['node-flags'].split(' ').filter(Boolean);
    const options = { ...(values.short ? SHORT_SCALE : FULL_SCALE), ...sizes, fleets: 2, nodeFlags };
    const run = new ScaleRun({ ...options, ...(until === undefined ? {} : { until }) }, say);
    const { rows, faults } = await run.run();
    const title = `Scale: ${options.agents} nodes and agents, ${options.pods} pods`;
    process.stdout.write(`\n${formatTable(title, rows)}\n`);
    for (const fault of faults) process.stdout.write(`FAULT: ${fault}\n`);
    if (values.json !== undefined)
      writeFileSync(values.json, `${JSON.stringify({ options, rows, faults }, null, 2)}\n`);
    process.exitCode = faults.length > 0 || !rows.every(isMet) ? 1 : 0;
  }
} catch (thrown) {
  process.stderr.write(`the run failed: ${(thrown as Error).stack}\n`);
  process.exit(1); // whatever is still under way
}
