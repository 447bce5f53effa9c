import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../mesh/common/errors.js';
import { statusOf } from '../../mesh/kube/index.js';
import { listAll, tryDelete, tryGet } from './requests.js';
import type { KubeObject, Requests, Say } from './types.js';

/** While it is there, agents take nothing into the mesh; one that has let go of its node writes `data[<node>] = released`. */
export const MARKER = 'culvert-uninstall';
export const RELEASED = 'released';

const CONTROLLER = 'culvert-controller';
const WEBHOOK_CA = 'culvert-webhook-ca';
const INSTALL_JOB = 'culvert-install';
const LEASE = 'culvert-controller-leader';
const ROOT_CONFIG_MAP = 'culvert-ca-root-cert';
const TAINT = 'culvert/agent-not-ready';
/** Of a node: for which of its boots an agent was ready. */
const READY_BOOT = 'culvert.io/agent-ready-boot';
const REDIRECTION = 'ambient.istio.io/redirection';
const NAME = 'app.kubernetes.io/name';
const [CONFLICT, UNPROCESSABLE] = [409, 422];

export interface UninstallOptions {
  /** Of the release. */
  readonly namespace: string;
  /** Names of our webhook configurations, validating ones. */
  readonly webhooks: readonly string[];
  /** For all agents to let go of their nodes, milliseconds. */
  readonly agentsTimeoutMs: number;
  /** For the controller to end, milliseconds. */
  readonly controllerTimeoutMs: number;
  readonly pollMs: number;
}

export const UNINSTALL_DEFAULTS = {
  agentsTimeoutMs: 120_000,
  controllerTimeoutMs: 30_000,
  pollMs: 1000,
} as const;

interface Marker extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

interface Pod extends KubeObject {
  readonly spec: { readonly nodeName?: string };
}

interface Node extends KubeObject {
  readonly spec: { readonly taints?: readonly { readonly key: string }[] };
}

interface Deps {
  readonly client: Requests;
  readonly say: Say;
}

/** Before an installation: the marker of an earlier removal would keep agents from their work. @throws KubeError */
export async function removeMarker(namespace: string, { client, say }: Deps): Promise<void> {
  if (await tryDelete(client, markerPath(namespace)))
    say(`ConfigMap ${MARKER} of an earlier uninstall removed`);
}

/**
 * Takes the mesh off every node and out of the API server, but for CRDs, users' objects and the CA's Secret. What cannot be done is said and
 * does not hold up the rest; false: something was left.
 */
export async function uninstall(options: UninstallOptions, deps: Deps): Promise<boolean> {
  let isWhole = true;
  const step = async (what: string, run: () => Promise<void>): Promise<void> => {
    try {
      await run();
    } catch (error) {
      isWhole = false;
      deps.say(`NOT DONE: ${what}: ${messageOf(error)}`);
    }
  };
  await step('nodes released by their agents', () => releaseNodes(options, deps));
  // A webhook whose controller has gone would refuse everything.
  await step('webhook configurations', () => removeWebhooks(options, deps));
  // It would write anew what is removed next.
  await step('controller stopped', () => stopController(options, deps));
  await step('webhook configurations', () => removeWebhooks(options, deps));
  await step('taints and annotations of nodes', () => removeTaints(deps));
  await step('redirection annotations', () => removeAnnotations(deps));
  await step('root ConfigMaps', () => removeRoots(deps));
  await step('authority of the webhook', async () => {
    await tryDelete(deps.client, `/api/v1/namespaces/${options.namespace}/secrets/${WEBHOOK_CA}`);
  });
  await step('lease', async () => void (await tryDelete(deps.client, leasePath(options.namespace))));
  await step('Job of a failed upgrade', () => removeInstallJob(options.namespace, deps));
  return isWhole;
}

/** Helm keeps what failed, for its log. */
async function removeInstallJob(namespace: string, { client, say }: Deps): Promise<void> {
  const path = `/apis/batch/v1/namespaces/${namespace}/jobs/${INSTALL_JOB}`;
  // Unasked, a Job's pods stay.
  if (await tryDelete(client, path, { propagationPolicy: 'Background' }))
    say(`Job ${INSTALL_JOB} of a failed upgrade removed`);
}

/** Throws an Error that names the nodes which were not released in time. */
async function releaseNodes(options: UninstallOptions, { client, say }: Deps): Promise<void> {
  await makeMarker(options.namespace, client);
  const untilMs = performance.now() + options.agentsTimeoutMs;
  for (;;) {
    const nodes = nodesOf(await agentsOf(options.namespace, client));
    const marker = await tryGet<Marker>(client, markerPath(options.namespace));
    const waiting = nodes.filter((node) => marker?.data?.[node] !== RELEASED);
    if (waiting.length === 0) {
      say(`released: ${nodes.length === 0 ? 'no node has an agent' : nodes.join(', ')}`);
      await nameBareNodes(nodes, { client, say });
      return;
    }
    if (performance.now() > untilMs) {
      const seconds = Math.round(options.agentsTimeoutMs / 1000);
      throw new Error(
        `${waiting.join(', ')}: no word of the agent within ${seconds} s. Its pods stay captured, and refused once it has gone, until \`culvertctl node release\` is run there`,
      );
    }
    await sleep(options.pollMs);
  }
}

/** Anew, should there be one: what agents wrote into an earlier one may no longer be true. */
async function makeMarker(namespace: string, client: Requests): Promise<void> {
  await tryDelete(client, markerPath(namespace));
  const labels = { 'app.kubernetes.io/part-of': 'culvert' };
  const body = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: MARKER, namespace, labels },
    data: {},
  };
  await client.request({ method: 'POST', path: `/api/v1/namespaces/${namespace}/configmaps`, body });
}

async function agentsOf(namespace: string, client: Requests): Promise<readonly Pod[]> {
  return await listAll<Pod>(client, `/api/v1/namespaces/${namespace}/pods`, {
    labelSelector: `${NAME}=culvert-agent`,
  });
}

function nodesOf(pods: readonly Pod[]): string[] {
  return [...new Set(pods.flatMap(({ spec }) => spec.nodeName ?? []))].sort();
}

/** Nobody is there to tell whether anything of the mesh is on them. */
async function nameBareNodes(withAgents: readonly string[], { client, say }: Deps): Promise<void> {
  const nodes = await listAll<Node>(client, '/api/v1/nodes');
  const bare = nodes.map(({ metadata }) => metadata.name).filter((name) => !withAgents.includes(name));
  if (bare.length > 0)
    say(`no agent runs on ${bare.join(', ')}: if one ever did, run \`culvertctl node release\` there`);
}

async function removeWebhooks({ webhooks }: UninstallOptions, { client, say }: Deps): Promise<void> {
  const group = '/apis/admissionregistration.k8s.io/v1';
  for (const name of webhooks)
    if (await tryDelete(client, `${group}/validatingwebhookconfigurations/${name}`))
      say(`ValidatingWebhookConfiguration ${name} removed`);
}

async function stopController(options: UninstallOptions, { client, say }: Deps): Promise<void> {
  const { namespace, controllerTimeoutMs, pollMs } = options;
  const path = `/apis/apps/v1/namespaces/${namespace}/deployments/${CONTROLLER}/scale`;
  if ((await tryGet(client, path)) === null) return;
  const contentType = 'application/merge-patch+json';
  await client.request({ method: 'PATCH', path, body: { spec: { replicas: 0 } }, contentType });
  const untilMs = performance.now() + controllerTimeoutMs;
  const query = { labelSelector: `${NAME}=${CONTROLLER}` };
  while ((await listAll<Pod>(client, `/api/v1/namespaces/${namespace}/pods`, query)).length > 0) {
    if (performance.now() > untilMs) throw new Error(`it still runs after ${controllerTimeoutMs} ms`);
    await sleep(pollMs);
  }
  say('controller stopped');
}

async function removeTaints({ client, say }: Deps): Promise<void> {
  for (const node of await listAll<Node>(client, '/api/v1/nodes'))
    if (isMarked(node) && (await unmark(node, client)))
      say(`taint and annotation removed from node ${node.metadata.name}`);
}

function isMarked({ metadata, spec }: Node): boolean {
  return (
    metadata.annotations?.[READY_BOOT] !== undefined || spec.taints?.some(({ key }) => key === TAINT) === true
  );
}

/** Taints are one list of all who write them: only over the version that was read. False: the node is gone. */
async function unmark(seen: Node, client: Requests): Promise<boolean> {
  const path = `/api/v1/nodes/${seen.metadata.name}`;
  for (let node: Node | null = seen; node !== null; node = await tryGet<Node>(client, path)) {
    const { resourceVersion } = node.metadata;
    const taints = node.spec.taints?.filter(({ key }) => key !== TAINT) ?? [];
    const metadata = { resourceVersion, annotations: { [READY_BOOT]: null } };
    const contentType = 'application/merge-patch+json';
    try {
      await client.request({ method: 'PATCH', path, body: { metadata, spec: { taints } }, contentType });
      return true;
    } catch (error) {
      if (statusOf(error) !== CONFLICT) throw error;
    }
  }
  return false;
}

/** Of pods whose agent was not reached. */
async function removeAnnotations({ client, say }: Deps): Promise<void> {
  for (const { metadata } of await listAll<Pod>(client, '/api/v1/pods')) {
    if (metadata.annotations?.[REDIRECTION] === undefined) continue;
    try {
      await client.request({
        method: 'PATCH',
        path: `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}/status`,
        body: { metadata: { annotations: { [REDIRECTION]: null } } },
        contentType: 'application/merge-patch+json',
      });
      say(`annotation removed from pod ${metadata.namespace}/${metadata.name}`);
    } catch (error) {
      // Gone meanwhile.
      if (![404, CONFLICT, UNPROCESSABLE].includes(statusOf(error))) throw error;
    }
  }
}

async function removeRoots({ client, say }: Deps): Promise<void> {
  const query = { fieldSelector: `metadata.name=${ROOT_CONFIG_MAP}` };
  const maps = await listAll<KubeObject>(client, '/api/v1/configmaps', query);
  for (const { metadata } of maps)
    await tryDelete(client, `/api/v1/namespaces/${metadata.namespace}/configmaps/${ROOT_CONFIG_MAP}`);
  say(`root removed from ${maps.length} namespaces`);
}

function markerPath(namespace: string): string {
  return `/api/v1/namespaces/${namespace}/configmaps/${MARKER}`;
}

function leasePath(namespace: string): string {
  return `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${LEASE}`;
}
