import { existsSync, readdirSync } from 'node:fs';
import { type AgentDump, readDump } from '../agent-dump.js';
import { type CommandDeps, command, type Result } from '../command.js';
import { type ControllerClient, type ControllerStatus, shortType } from '../controller-status.js';
import { CliError, type CliErrorCode } from '../errors.js';
import { formatAge, type Rows } from '../output.js';
import { bpffsOption } from './bpffs-option.js';
import { clusterStatus } from './cluster-status.js';
import { problemTables } from './problem-table.js';

export const status = command({
  path: 'status',
  summary:
    'Whether this node and its controller are well, and what they wait for; of a cluster, all of its agents and controllers. Exit code 1 if not.',
  options: {
    bpffs: bpffsOption,
  },
  asksController: true,
  examples: [
    'culvertctl status',
    'culvertctl status -o json',
    'culvertctl status --kubeconfig ~/.kube/config',
    'culvertctl status --node worker-1',
  ],
  async run({ bpffs }, { agent, controller, cluster, node: name }) {
    if (cluster !== null && name === '') return await clusterStatus(cluster);
    const [node, control] = await Promise.all([
      ifReachable(agentStatus(agent)),
      // One that is no pod of this cluster is none that could be asked.
      ifReachable(controllerStatus(controller), ['UNREACHABLE', 'NOT_FOUND']),
    ]);
    if (node instanceof CliError && control instanceof CliError) throw node;
    const tables: { title: string; rows: Rows }[] = [];
    const notes: string[] = [];
    for (const [name, found] of [
      ['agent', node],
      ['controller', control],
    ] as const) {
      if (found instanceof CliError)
        notes.push(
          found.code === 'UNREACHABLE'
            ? `${name}: none here, none answers at ${String(found.data['address'])}`
            : `${name}: ${found.message}`,
        );
      else tables.push({ title: name, rows: found.rows }, ...found.more);
    }
    // A node need not have a controller, nor the controller's machine an agent.
    const isAbandoned = cluster === null && node instanceof CliError && hasPins(bpffs);
    if (isAbandoned)
      notes.push(
        `an agent's programs are pinned in ${bpffs}: the pods it captured are refused until one runs (or culvertctl node release)`,
      );
    const isWell =
      !isAbandoned && [node, control].every((found) => found instanceof CliError || found.isWell);
    return {
      json: { agent: jsonOf(node), controller: jsonOf(control) },
      tables,
      notes,
      exitCode: isWell ? 0 : 1,
    };
  },
});

/** Pins outlive their agent: where they are, one belongs. */
function hasPins(bpffs: string): boolean {
  return existsSync(bpffs) && readdirSync(bpffs).some((name) => name.startsWith('abi-'));
}

interface Found {
  readonly isWell: boolean;
  readonly json: unknown;
  readonly rows: Rows;
  readonly more: readonly { readonly title: string; readonly rows: Rows }[];
}

async function agentStatus(agent: CommandDeps['agent']): Promise<Found> {
  const sections = ['options', 'xds', 'certificates', 'capture', 'manifests'] as const;
  const { options, xds, certificates, capture, manifests } = await readDump(agent, ...sections);
  const { problems } = manifests;
  const count = (state: string) => capture.pods.filter((pod) => pod.state === state).length;
  const missing = certificates.filter((one) => one.state !== 'valid').length;
  const rejected = xds.types.reduce((sum, type) => sum + Object.keys(type.rejected).length, 0);
  const rows: Rows = [
    ['WHAT', 'STATE', 'DETAIL'],
    ['node', options.node, `trust domain ${options.trustDomain}`],
    [
      'controller',
      xds.isConnected ? 'connected' : 'away',
      xds.isConnected ? xds.controller : `${xds.controller}: ${xds.lastError ?? 'connecting'}`,
    ],
    [
      'configuration',
      xds.isReady ? 'in force' : 'awaited',
      rejected === 0 ? xds.pending.join('; ') : `${rejected} resources refused`,
    ],
    ['certificates', `${certificates.length - missing} valid`, missing === 0 ? '' : `${missing} missing`],
    ['capture', capture.trouble === '' ? 'in force' : 'stands still', capture.trouble],
    ['pods captured', count('captured'), podsText(capture)],
    ['manifests', stateOf(problems), ''],
  ];
  const isInForce = xds.isConnected && xds.isReady && missing === 0 && rejected === 0;
  const { pods, unknownPods, trouble } = capture;
  const isAsWritten = problems.length === 0 && unfollowed(capture) === 0;
  return {
    isWell: isInForce && count('refused') === 0 && trouble === '' && isAsWritten,
    json: { node: options.node, xds, certificates, pods, unknownPods, trouble, problems },
    rows,
    more: problemTables({ problems, notices: [], reports: [] }, 'agent'),
  };
}

/** `absent` are in a manifest and have no cgroup; of the others it is the other way round. */
function podsText(capture: AgentDump['capture']): string {
  const { pods, unknownPods } = capture;
  const states = ['plain', 'waiting', 'refused', 'absent'];
  const counts = states.map((state) => `${pods.filter((pod) => pod.state === state).length} ${state}`);
  const named = unknownPods === 0 ? [] : [`${unknownPods} in no manifest (refused)`];
  const faulty = unfollowed(capture);
  const notFollowed = faulty === 0 ? [] : [`${faulty} captured not as their manifests say`];
  return [...counts, ...named, ...notFollowed].join(', ');
}

/** Pods captured as before: their manifests cannot be followed. */
function unfollowed({ pods }: AgentDump['capture']): number {
  return pods.filter(({ state, reason }) => state === 'captured' && reason !== '').length;
}

function stateOf(problems: readonly unknown[]): string {
  return problems.length === 0 ? 'sound' : `${problems.length} problems`;
}

async function controllerStatus(controller: CommandDeps['controller']): Promise<Found> {
  const found = (await controller.json('/status')) as ControllerStatus;
  const { pending, agents, problems, notices, reports } = found;
  const isBehind = agents.some(({ types }) => types.some(({ state }) => state === 'refused'));
  const rows: Rows = [
    ['WHAT', 'STATE', 'DETAIL'],
    ['readiness', pending === null ? 'ready' : 'waits', pending],
    ['manifests', stateOf(problems), notices.length === 0 ? '' : `${notices.length} notices`],
    ['reports', reports.length, reports.length === 0 ? '' : 'in force, but not as written'],
    ...Object.entries(found.resources).map(([typeUrl, count]) => [shortType(typeUrl), count, 'resources']),
    ...agents.map((agent) => [
      `agent ${agent.node ?? 'of no node'}`,
      `since ${formatAge(agent.connectedMs)}`,
      agent.types.map(typeText).join(', '),
    ]),
  ];
  const isWell = pending === null && problems.length === 0 && !isBehind;
  return { isWell, json: found, rows, more: problemTables(found, 'controller') };
}

function typeText({ typeUrl, state, lastNack }: ControllerClient['types'][number]): string {
  return `${shortType(typeUrl)} ${state}${lastNack === null ? '' : `: ${lastNack}`}`;
}

async function ifReachable(
  found: Promise<Found>,
  codes: readonly CliErrorCode[] = ['UNREACHABLE'],
): Promise<Found | CliError> {
  try {
    return await found;
  } catch (error) {
    if (error instanceof CliError && codes.includes(error.code)) return error;
    throw error;
  }
}

function jsonOf(found: Found | CliError): Result['json'] {
  return found instanceof CliError ? { unreachable: found.message } : found.json;
}
