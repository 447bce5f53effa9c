import { type AgentDump, readDump } from '../agent-dump.js';
import { askAll, unaskedNotes } from '../cluster/ask-all.js';
import type { Cluster, MeshPod } from '../cluster/cluster.js';
import type { Result } from '../command.js';
import { type ControllerStatus, problemText, shortType } from '../controller-status.js';
import { CliError } from '../errors.js';
import { formatAge, type Rows } from '../output.js';
import { problemTables } from './problem-table.js';

interface AgentRow {
  readonly pod: MeshPod;
  /** As the agent says; null: it was not asked. */
  readonly dump: Pick<AgentDump, 'xds' | 'certificates' | 'capture'> | CliError | null;
  /** As its controller says: the worst of its types. */
  readonly configuration: string;
}

interface ControllerRow {
  readonly pod: MeshPod;
  readonly status: ControllerStatus | CliError;
}

/** All agents and controllers of a cluster: as Kubernetes has their pods, and as they say themselves. */
export async function clusterStatus(cluster: Cluster): Promise<Result> {
  const [agentPods, controllerPods, wanted] = await Promise.all([
    cluster.pods('agent'),
    cluster.pods('controller'),
    wantedAgents(cluster),
  ]);
  const controllers = (
    await askAll(
      cluster,
      'controller',
      controllerPods,
      async (admin) => (await admin.json('/status')) as ControllerStatus,
    )
  ).flatMap(({ pod, answer }): ControllerRow[] => (answer === null ? [] : [{ pod, status: answer }]));
  const asked = await askAll(cluster, 'agent', agentPods, (admin) =>
    readDump(admin, 'xds', 'certificates', 'capture'),
  );
  const agents = asked.map(({ pod, answer }): AgentRow => {
    return { pod, dump: answer, configuration: configurationOf(pod.node, controllers) };
  });
  const notes = [
    ...missingNotes(agentPods, controllerPods, wanted),
    ...agents.flatMap(agentNotes),
    ...controllers.flatMap(controllerNotes),
    ...unaskedNotes(asked),
  ];
  const isWell = notes.length === 0 || notes.every((note) => note.endsWith(': --node for one'));
  return {
    json: { agents: agents.map(jsonOf), controllers: controllers.map(jsonOf), wantedAgents: wanted },
    tables: [
      { title: 'agents', rows: agentRows(agents) },
      { title: 'controllers', rows: controllerRows(controllers) },
      ...noticeTables(controllers),
    ],
    notes,
    exitCode: isWell ? 0 : 1,
  };
}

/** What is worth knowing, though nothing is wrong; all controllers see the same. */
function noticeTables(controllers: readonly ControllerRow[]): Result['tables'] {
  const [known] = controllers.flatMap(({ status }) => (status instanceof CliError ? [] : [status]));
  return known === undefined
    ? []
    : problemTables({ problems: [], notices: known.notices, reports: [] }, 'controller');
}

/** Nodes that are to have an agent; null: there is no DaemonSet, or we may not read it. */
async function wantedAgents(cluster: Cluster): Promise<number | null> {
  try {
    const { status } = await cluster.kubectl.json<{ status: { desiredNumberScheduled?: number } }>(
      ...['get', 'daemonset', 'culvert-agent', '-n', cluster.namespace],
    );
    return status.desiredNumberScheduled ?? null;
  } catch (error) {
    if (error instanceof CliError) return null;
    throw error;
  }
}

function configurationOf(node: string, controllers: readonly ControllerRow[]): string {
  const types = controllers
    .flatMap(({ status }) => (status instanceof CliError ? [] : status.agents))
    .filter((agent) => agent.node === node)
    .flatMap((agent) => agent.types);
  const refused = types.find(({ state }) => state === 'refused');
  if (refused !== undefined) return `refused ${shortType(refused.typeUrl)}: ${refused.lastNack ?? ''}`;
  if (types.length === 0) return 'not connected';
  return types.some(({ state }) => state === 'sent') ? 'sent' : 'synced';
}

function agentRows(agents: readonly AgentRow[]): Rows {
  return [
    [
      'NODE',
      'POD',
      'READY',
      'CONFIGURATION',
      'CAPTURED',
      'PLAIN',
      'REFUSED',
      'CERTIFICATES',
      'RESTARTS',
      'AGE',
    ],
    ...agents.map(({ pod, dump, configuration }) => {
      const isKnown = dump !== null && !(dump instanceof CliError);
      const count = (state: string) =>
        isKnown ? dump.capture.pods.filter((one) => one.state === state).length : null;
      const valid = isKnown ? dump.certificates.filter(({ state }) => state === 'valid').length : null;
      return [
        pod.node,
        pod.name,
        pod.isEnding ? 'drains' : pod.isReady ? 'yes' : 'no',
        configuration,
        ...[count('captured'), count('plain'), count('refused'), valid, pod.restarts],
        formatAge(Date.now() - pod.createdMs),
      ];
    }),
  ];
}

function controllerRows(controllers: readonly ControllerRow[]): Rows {
  return [
    ['POD', 'NODE', 'READY', 'AGENTS', 'PROBLEMS', 'REPORTS', 'FINDINGS', 'RESTARTS', 'AGE'],
    ...controllers.map(({ pod, status }) => {
      const known = status instanceof CliError ? null : status;
      const counts = [known?.agents, known?.problems, known?.reports, known?.findings].map(
        (of) => of?.length,
      );
      const age = formatAge(Date.now() - pod.createdMs);
      return [pod.name, pod.node, pod.isReady ? 'yes' : 'no', ...counts, pod.restarts, age];
    }),
  ];
}

function missingNotes(
  agents: readonly MeshPod[],
  controllers: readonly MeshPod[],
  wanted: number | null,
): string[] {
  const nodes = new Set(agents.filter(({ isReady }) => isReady).map(({ node }) => node));
  return [
    ...(wanted !== null && nodes.size < wanted
      ? [`${wanted - nodes.size} of ${wanted} nodes have no agent that is ready`]
      : []),
    ...(agents.length === 0 && wanted === null ? ['no agent was found'] : []),
    ...(controllers.some(({ isReady }) => isReady) ? [] : ['no controller is ready']),
  ];
}

function agentNotes({ pod, dump, configuration }: AgentRow): string[] {
  if (pod.isEnding) return [];
  const of = `agent of ${pod.node}`;
  if (dump instanceof CliError) return [`${of}: ${dump.message}`];
  const notes: string[] = [];
  if (configuration === 'not connected') notes.push(`${of}: no controller knows it`);
  else if (configuration.startsWith('refused')) notes.push(`${of}: ${configuration}`);
  if (dump === null) return notes;
  const { xds, certificates, capture } = dump;
  const refused = capture.pods.filter(({ state }) => state === 'refused');
  const missing = certificates.filter(({ state }) => state !== 'valid');
  if (!xds.isConnected) notes.push(`${of}: the controller is away: ${xds.lastError ?? 'connecting'}`);
  if (!xds.isReady) notes.push(`${of}: waits for ${xds.pending.join(', ')}`);
  if (capture.trouble !== '') notes.push(`${of}: nothing is enrolled: ${capture.trouble}`);
  if (capture.unknownPods > 0)
    notes.push(
      `${of}: ${capture.unknownPods} pod cgroups that nobody has named: their connections are refused`,
    );
  for (const { namespace, name, reason } of refused.slice(0, 5))
    notes.push(`${of}: pod ${namespace}/${name} is refused: ${reason}`);
  for (const { identity, lastError } of missing.slice(0, 5))
    notes.push(`${of}: no certificate for ${identity}: ${lastError ?? 'asked for'}`);
  return notes;
}

function controllerNotes({ pod, status }: ControllerRow): string[] {
  if (pod.isEnding) return [];
  const of = `controller ${pod.name}`;
  if (status instanceof CliError) return [`${of}: ${status.message}`];
  return [
    ...(status.pending === null ? [] : [`${of}: waits for ${status.pending}`]),
    ...status.problems.slice(0, 5).map((problem) => `${of}: ${problemText(problem)}`),
  ];
}

function jsonOf<Row extends object>(row: Row): unknown {
  return Object.fromEntries(
    Object.entries(row).map(([name, value]) => [
      name,
      value instanceof CliError ? { unreachable: value.message } : value,
    ]),
  );
}
