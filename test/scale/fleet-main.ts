// Agents of one process of the harness; told what to do by its parent (fleet.ts).
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import type { FleetAnswer, FleetCommand, Watch } from './fleet.js';
import { ResponseReader } from './responses.js';
import { Dials, SimAgent } from './sim-agent.js';

interface Watching extends Watch {
  /** By id of a name: whether it counts; undefined: not looked at yet. */
  readonly matches: (boolean | undefined)[];
  readonly counts: Map<SimAgent, number>;
  readonly timesMs: Map<SimAgent, number>;
}

const DIALS_AT_ONCE = 20;

const reader = new ResponseReader();
const watches = new Map<number, Watching>();
const shared = new Map<string, Record<string, string>>();
let agents: SimAgent[] = [];

/** The same clock in all processes of the machine. */
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;
const tell = (answer: FleetAnswer): void => void process.send?.(answer);

function countsIn(watch: Watching, versionId: number): number {
  if (versionId === 0) return 0;
  if (watch.what === 'present') return 1;
  const { captured, revision } = reader.versions[versionId]!;
  return (watch.what === 'captured' ? captured : revision === watch.revision) ? 1 : 0;
}

function isIn(watch: Watching, nameId: number): boolean {
  watch.matches[nameId] ??= reader.names[nameId]!.startsWith(watch.prefix);
  return watch.matches[nameId];
}

function onChange(agent: SimAgent, nameId: number, before: number, now: number): void {
  for (const watch of watches.values()) {
    if (!isIn(watch, nameId)) continue;
    const change = countsIn(watch, now) - countsIn(watch, before);
    if (change !== 0) watch.counts.set(agent, (watch.counts.get(agent) ?? 0) + change);
  }
}

function onTaken(agent: SimAgent): void {
  for (const watch of watches.values()) look(watch, agent);
}

function look(watch: Watching, agent: SimAgent): void {
  if (!agent.isSynced || watch.timesMs.has(agent) || (watch.counts.get(agent) ?? 0) !== watch.expected)
    return;
  watch.timesMs.set(agent, nowMs());
  if (watch.timesMs.size < agents.length) return;
  watches.delete(watch.id);
  tell({ kind: 'reached', id: watch.id, timesMs: [...watch.timesMs.values()] });
}

function begin(watch: Watch): void {
  const watching: Watching = { ...watch, matches: [], counts: new Map(), timesMs: new Map() };
  watches.set(watch.id, watching);
  const nameIds: number[] = [];
  for (let nameId = 1; nameId < reader.names.length; nameId++)
    if (isIn(watching, nameId)) nameIds.push(nameId);
  for (const agent of agents) {
    let count = 0;
    for (const nameId of nameIds) count += countsIn(watching, agent.held[nameId] ?? 0);
    watching.counts.set(agent, count);
    look(watching, agent);
  }
}

/** Agents that hold the same tell the same when they come back. */
function versionsOf(agent: SimAgent, typeUrl: string): Record<string, string> {
  if (agent.count === 0) return {};
  const prefix = `${typeUrl.slice(typeUrl.lastIndexOf('.') + 1)}:`;
  const key = `${prefix}${agent.digest}`;
  let versions = shared.get(key);
  if (versions === undefined) {
    versions = {};
    for (let nameId = 1; nameId < reader.names.length; nameId++) {
      const name = reader.names[nameId]!;
      const versionId = agent.held[nameId] ?? 0;
      if (versionId !== 0 && name.startsWith(prefix))
        versions[name.slice(prefix.length)] = reader.versions[versionId]!.version;
    }
    shared.clear();
    shared.set(key, versions);
  }
  return versions;
}

function summary(): Extract<FleetAnswer, { kind: 'summary' }> {
  const ends: Record<string, number> = {};
  for (const { lastEnd } of agents) if (lastEnd !== '') ends[lastEnd] = (ends[lastEnd] ?? 0) + 1;
  const [first] = agents;
  const names = reader.names.filter((_, nameId) => (first?.held[nameId] ?? 0) !== 0);
  return {
    kind: 'summary',
    digests: [...new Set(agents.map(({ digest, count }) => `${count}/${digest}`))],
    reconnects: agents.reduce((sum, { reconnects }) => sum + reconnects, 0),
    ends,
    names,
    watches: [...watches.values()].map((watch) => {
      const counts = [...watch.counts.values()];
      return `${watch.what} ${watch.prefix}: ${watch.timesMs.size} of ${agents.length} reached ${watch.expected}; counts ${Math.min(...counts)}-${Math.max(...counts)}`;
    }),
  };
}

process.on('message', (command: FleetCommand) => {
  switch (command.kind) {
    case 'start': {
      const secureContext = createSecureContext({ ca: readFileSync(command.rootFile) });
      const deps = { dials: new Dials(DIALS_AT_ONCE), reader, onChange, onTaken, versionsOf };
      agents = command.agents.map(
        ({ node, token }) =>
          new SimAgent({ url: command.url, secureContext, node, token: () => token }, deps),
      );
      for (const agent of agents) agent.start();
      return;
    }
    case 'watch':
      begin(command.watch);
      return;
    case 'hang':
      for (const agent of agents.splice(0, command.agents)) agent.hang();
      return;
    case 'summary':
      tell(summary());
  }
});
process.on('disconnect', () => process.exit(0));
