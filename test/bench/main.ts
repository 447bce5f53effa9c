import { accessSync, constants, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { PEER_NAMES, type PeerName } from './bed.js';
import { type BenchOptions, type BenchResult, runBench } from './bench.js';
import { formatPodStart, fullPodStart, measurePodStart } from './pod-start.js';
import { formatTable } from './report.js';
import { formatScale, fullScale, measureScale } from './scale.js';
import { formatVerdicts } from './targets.js';

const USAGE = `npm run bench -- [--json FILE] [--rounds N] [--secs S] [--only PEER,…] [--short]
  --json FILE   write the results there as JSON, too
  --rounds N    rounds, of whose readings medians are taken (3)
  --secs S      seconds of load per reading (3)
  --only …      some of: ${PEER_NAMES.join(', ')}
  --scale       only what a large mesh costs an agent
  --pod-start   only how long pods wait at their start
  --first       with --pod-start: the agent and the pods go before whatever else runs on this machine
  --short       1 round of 0.3 s: shows that it works, measures nothing
`;

function parse(args: readonly string[]): BenchOptions & {
  json: string | undefined;
  onlyScale: boolean;
  onlyPodStart: boolean;
  goesFirst: boolean;
} {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      json: text,
      rounds: text,
      secs: text,
      only: text,
      short: flag,
      scale: flag,
      'pod-start': flag,
      first: flag,
      help: flag,
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  const rounds = Number(values.rounds ?? (values.short ? 1 : 3));
  const secs = Number(values.secs ?? (values.short ? 0.3 : 3));
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error(`--rounds ${values.rounds}: a whole number from 1`);
  if (!(secs >= 0.1 && secs <= 60)) throw new Error(`--secs ${values.secs}: 0.1 to 60`);
  const names = [...new Set(values.only?.split(',') ?? PEER_NAMES)];
  const unknown = names.find((name) => !PEER_NAMES.some((peer) => peer === name));
  if (unknown !== undefined) throw new Error(`--only ${unknown}: one of ${PEER_NAMES.join(', ')}`);
  // Now, not after ten minutes of load.
  if (values.json !== undefined) accessSync(dirname(values.json), constants.W_OK);
  const only = { onlyScale: values.scale === true, onlyPodStart: values['pod-start'] === true };
  return {
    json: values.json,
    ...only,
    goesFirst: values.first === true,
    rounds,
    secs,
    peers: names as PeerName[],
  };
}

function print(result: BenchResult): string {
  const { rounds, secs } = result.options;
  const memory = result.memoryAfterRounds.map((round) =>
    Object.entries(round)
      .map(([peer, megabytes]) => `${peer} ${megabytes.toFixed(1)}`)
      .join('  '),
  );
  const parts = [
    `Medians of ${rounds} ${rounds === 1 ? 'round' : 'rounds'} of ${secs} s; ± is half the spread`,
    formatTable(result.rows),
    `PSS of the pairs after each round of load, MB\n${memory.map((line, i) => `  ${i + 1}: ${line}`).join('\n')}`,
  ];
  if (secs < 1)
    parts.push(
      'Readings of less than a second show that everything works; they are not held against the targets.',
    );
  else if (result.targets.length > 0) parts.push(formatVerdicts(result.targets));
  return `\n${parts.join('\n\n')}\n`;
}

let options: ReturnType<typeof parse>;
try {
  options = parse(process.argv.slice(2));
} catch (thrown) {
  process.stderr.write(`${(thrown as Error).message}\n${USAGE}`);
  process.exit(2);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130));
const { json, onlyScale, onlyPodStart, goesFirst, ...benchOptions } = options;
if (onlyPodStart) {
  process.stdout.write(`\n${formatPodStart(await measurePodStart({ ...fullPodStart, goesFirst }))}\n`);
  process.exit(0);
}
const result = onlyScale
  ? null
  : await runBench(benchOptions, (line) => process.stderr.write(`bench: ${line}\n`));
if (result !== null) process.stdout.write(print(result));
const scale = await measureScale();
process.stdout.write(`\n${formatScale(scale, fullScale)}\n`);
if (json !== undefined) writeFileSync(json, `${JSON.stringify({ ...result, scale }, null, 2)}\n`);
