import { readDump } from '../agent-dump.js';
import type { Cluster } from '../cluster/cluster.js';
import { stuckHooks } from '../cluster/hooks.js';
import type { CommandDeps } from '../command.js';
import { type ControllerStatus, problemText } from '../controller-status.js';
import { CliError, orError } from '../errors.js';
import { type Finding, finding } from '../finding.js';

/** charts/culvert/Chart.yaml, kubeVersion. */
const oldestMinor = 32;
/** Agents read as the node that they are on: constrained impersonation. */
const impersonationMinor = 36;
const reportsAtMost = 10;

/** What of a cluster keeps the mesh from working, or from being as safe as it can be; with a node, also that node's agent. */
export async function clusterFindings(
  cluster: Cluster,
  { agent, controller, node }: Pick<CommandDeps, 'agent' | 'controller' | 'node'>,
): Promise<Finding[]> {
  return [
    ...(await kubernetes(cluster)),
    await namespaceAdmits(cluster),
    ...(await hooks(cluster)),
    ...(await pods(cluster)),
    ...(await fromController(controller)),
    ...(node === '' ? [] : await fromAgent(agent, node)),
  ];
}

async function kubernetes(cluster: Cluster): Promise<Finding[]> {
  const { serverVersion } = await cluster.kubectl.json<{
    serverVersion: { major: string; minor: string; gitVersion: string };
  }>('version');
  const minor = serverVersion.major === '1' ? Number.parseInt(serverVersion.minor, 10) : oldestMinor;
  const isOld = minor < oldestMinor;
  return [
    finding(
      'Kubernetes',
      isOld ? 'fails' : 'ok',
      serverVersion.gitVersion,
      `Kubernetes 1.${oldestMinor} or newer is needed`,
    ),
    finding(
      'constrained impersonation',
      minor >= impersonationMinor ? 'ok' : 'warning',
      minor >= impersonationMinor ? 'served' : `not before 1.${impersonationMinor}`,
      'agents may list all pods of the cluster here, not their own only (value agent.rbac.listAllPods); a newer Kubernetes ends it',
    ),
    await admissionPolicies(cluster),
  ];
}

async function admissionPolicies({ kubectl }: Cluster): Promise<Finding> {
  const text = await kubectl.text('get', '--raw', '/apis/admissionregistration.k8s.io/v1');
  const isServed = text.includes('"validatingadmissionpolicies"');
  return finding(
    'ValidatingAdmissionPolicy',
    isServed ? 'ok' : 'fails',
    isServed ? 'served' : 'not served',
    'nothing keeps an agent, or a tenant, from writing the redirection annotation of pods that are not theirs',
  );
}

async function namespaceAdmits(cluster: Cluster): Promise<Finding> {
  const label = 'pod-security.kubernetes.io/enforce';
  const found = await orError(
    cluster.kubectl.json<{ metadata: { labels?: Record<string, string> } }>(
      ...['get', 'namespace', cluster.namespace],
    ),
  );
  if (found instanceof CliError)
    return finding('namespace', 'warning', found.message, `may you read namespace ${cluster.namespace}?`);
  const level = found.metadata.labels?.[label];
  const isRefused = level !== undefined && level !== 'privileged';
  return finding(
    'namespace',
    isRefused ? 'fails' : 'ok',
    level === undefined ? 'no pod-security label' : `pod security ${level}`,
    `agents are privileged: kubectl label namespace ${cluster.namespace} ${label}=privileged`,
  );
}

async function hooks(cluster: Cluster): Promise<Finding[]> {
  return (await stuckHooks(cluster)).map(({ job, why }) =>
    finding(
      'installation',
      'fails',
      `Job ${job} has not succeeded${why === '' ? '' : `: ${why}`}`,
      `${why === '' ? `kubectl -n ${cluster.namespace} logs job/${job}` : 'mend that'}, then helm upgrade --install --reset-values, with your values`,
    ),
  );
}

async function pods(cluster: Cluster): Promise<Finding[]> {
  const [agents, controllers] = await Promise.all([cluster.pods('agent'), cluster.pods('controller')]);
  return (['agent', 'controller'] as const).map((program) => {
    const all = (program === 'agent' ? agents : controllers).filter(({ isEnding }) => !isEnding);
    const unready = all.filter(({ isReady }) => !isReady);
    return finding(
      `${program}s`,
      all.length === 0 || unready.length > 0 ? 'fails' : 'ok',
      all.length === 0
        ? 'none'
        : unready.length === 0
          ? `${all.length} ready`
          : `not ready: ${unready.map(({ name, node }) => `${name} (${node})`).join(', ')}`,
      all.length === 0
        ? 'helm upgrade --install culvert charts/culvert'
        : 'culvertctl status says what they wait for; kubectl describe pod',
    );
  });
}

async function fromController(controller: CommandDeps['controller']): Promise<Finding[]> {
  const found = await orError(controller.json('/status') as Promise<ControllerStatus>);
  if (found instanceof CliError)
    return [finding('controller', 'fails', found.message, 'kubectl logs of the controller')];
  const blocked = found.findings.filter(({ reason }) => reason === 'BlocksMesh');
  const others = found.findings.filter(({ reason }) => reason !== 'BlocksMesh');
  return [
    ...(blocked.length === 0
      ? [finding('NetworkPolicies', 'ok', 'none keeps the mesh from a pod', '')]
      : blocked.map(({ object, note }) =>
          finding('NetworkPolicies', 'fails', `${object}: ${note}`, 'let it admit TCP 15008 beside the port'),
        )),
    ...others.map(({ object, reason, note }) =>
      finding(reason, 'warning', `${object}: ${note}`, adviceOf[reason] ?? 'docs/operations.md'),
    ),
    finding(
      'configuration',
      found.problems.length === 0 ? 'ok' : 'warning',
      found.problems.length === 0 ? 'sound' : `${found.problems.length} problems`,
      'culvertctl status names them',
    ),
    ...notAsWritten(found.reports),
    ...notices(found.notices),
  ];
}

/** Nothing is wrong: a policy that selects no pod, a kind that is not read. */
function notices(list: ControllerStatus['notices']): Finding[] {
  if (list.length === 0) return [];
  const more = list.length > 3 ? `; and ${list.length - 3} more` : '';
  const found = `${list.slice(0, 3).map(problemText).join('; ')}${more}`;
  return [finding('notices', 'ok', found, '')];
}

/** What was accepted and is not in force as its author wrote it: a policy that selects pods outside of the mesh, fields that are L7 only. */
function notAsWritten(reports: ControllerStatus['reports']): Finding[] {
  const check = 'as written';
  const advice = 'the status and the events of the object say so, too';
  const rest = reports.length - reportsAtMost;
  return [
    ...reports
      .slice(0, reportsAtMost)
      .map(({ object, field, reason, effect }) =>
        finding(
          check,
          'warning',
          [object, field, reason, effect].filter((part) => part !== '').join(': '),
          advice,
        ),
      ),
    ...(rest > 0 ? [finding(check, 'warning', `${rest} more`, 'culvertctl status -o json has all')] : []),
  ];
}

async function fromAgent(agent: CommandDeps['agent'], node: string): Promise<Finding[]> {
  const found = await orError(readDump(agent, 'capture', 'xds'));
  if (found instanceof CliError)
    return [finding(`agent of ${node}`, 'fails', found.message, 'kubectl logs of the agent')];
  const { capture } = found;
  const missing = capture.features.filter(({ present }) => !present).map(({ name }) => name);
  const dead = capture.links.filter(({ isLive }) => !isLive).map(({ hook }) => hook);
  return [
    finding(
      `capture on ${node}`,
      capture.trouble === '' && dead.length === 0 ? 'ok' : 'fails',
      capture.trouble || (dead.length === 0 ? 'in force' : `not in force: ${dead.join(', ')}`),
      'nothing is enrolled until this is gone; restart the agent where a hook is not in force',
    ),
    finding(
      `kernel of ${node}`,
      missing.length === 0 ? 'ok' : 'warning',
      missing.length === 0 ? 'has all that is used' : `without ${missing.join(', ')}`,
      'docs/operations.md says what is done without it',
    ),
  ];
}

/** control/writeback/checks.ts. */
const adviceOf: Readonly<Record<string, string>> = {
  PodsHeld: 'start an agent there, or culvertctl node release on that node',
  NotCaptured: 'culvertctl pods --node NAMESPACE/POD says why',
  ExclusionUsed: 'value exemptions.allow says who may do that',
};
