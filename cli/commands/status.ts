import { existsSync, readdirSync } from 'node:fs';
import { readDump } from '../agent-dump.js';
import { type CommandDeps, command, type Result } from '../command.js';
import {
  type ControllerClient,
  type ControllerStatus,
  problemText,
  shortType,
} from '../controller-status.js';
import { CliError } from '../errors.js';
import { formatAge, type Rows } from '../output.js';
import { bpffsOption } from './bpffs-option.js';
import { clusterStatus } from './cluster-status.js';

export const status = command({
  path: 'status',
  summary:
    'Whether this node and its controller are well, and what they wait for; of a cluster, all of its agents and controllers. Exit code 1 if not.',
  options: {
    bpffs: bpffsOption,
  },
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
      ifReachable(controllerStatus(controller)),
    ]);
    if (node instanceof CliError && control instanceof CliError) throw node;
    const tables: { title: string; rows: Rows }[] = [];
    const notes: string[] = [];
    for (const [name, found] of [
      ['agent', node],
      ['controller', control],
    ] as const) {
      if (found instanceof CliError)
        notes.push(`${name}: none here, none answers at ${String(found.data['address'])}`);
      else tables.push({ title: name, rows: found.rows });
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
}

async function agentStatus(agent: CommandDeps['agent']): Promise<Found> {
  const { options, xds, certificates, capture } = await readDump(
    agent,
    'options',
    'xds',
    'certificates',
    'capture',
  );
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
    [
      'pods captured',
      count('captured'),
      `${count('plain')} plain, ${count('waiting')} waiting, ${count('refused')} refused, ${capture.unknownPods} unknown`,
    ],
  ];
  const isInForce = xds.isConnected && xds.isReady && missing === 0 && rejected === 0;
  const { pods, unknownPods, trouble } = capture;
  return {
    isWell: isInForce && count('refused') === 0 && trouble === '',
    json: { node: options.node, xds, certificates, pods, unknownPods, trouble },
    rows,
  };
}

async function controllerStatus(controller: CommandDeps['controller']): Promise<Found> {
  const found = (await controller.json('/status')) as ControllerStatus;
  const { pending, agents, problems, reports } = found;
  const isBehind = agents.some(({ types }) => types.some(({ state }) => state === 'refused'));
  const rows: Rows = [
    ['WHAT', 'STATE', 'DETAIL'],
    ['readiness', pending === null ? 'ready' : 'waits', pending],
    [
      'manifests',
      problems.length === 0 ? 'sound' : `${problems.length} problems`,
      problems.map(problemText)[0],
    ],
    [
      'reports',
      reports.length,
      reports.length === 0 ? '' : 'accepted, but not as written: -o json lists them',
    ],
    ...Object.entries(found.resources).map(([typeUrl, count]) => [shortType(typeUrl), count, 'resources']),
    ...agents.map((agent) => [
      `agent ${agent.node ?? 'of no node'}`,
      `since ${formatAge(agent.connectedMs)}`,
      agent.types.map(typeText).join(', '),
    ]),
  ];
  return { isWell: pending === null && problems.length === 0 && !isBehind, json: found, rows };
}

function typeText({ typeUrl, state, lastNack }: ControllerClient['types'][number]): string {
  return `${shortType(typeUrl)} ${state}${lastNack === null ? '' : `: ${lastNack}`}`;
}

async function ifReachable(found: Promise<Found>): Promise<Found | CliError> {
  try {
    return await found;
  } catch (error) {
    if (error instanceof CliError && error.code === 'UNREACHABLE') return error;
    throw error;
  }
}

function jsonOf(found: Found | CliError): Result['json'] {
  return found instanceof CliError ? { unreachable: found.message } : found.json;
}
