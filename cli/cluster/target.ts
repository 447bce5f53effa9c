import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { SocketAddress } from '../../mesh/common/address.js';
import { type OptionValues, option } from '../../mesh/config/index.js';
import { AdminClient } from '../admin-client.js';
import { Cluster } from './cluster.js';
import { Kubectl } from './kubectl.js';

const localAgent: SocketAddress = { address: '127.0.0.1', port: 15000 };
const localController: SocketAddress = { address: '127.0.0.1', port: 15016 };
const meshNamespace = 'culvert-system';
const probeTimeoutMs = 500;

/** Of all commands that ask an agent or a controller. */
export const targetOptions = {
  agent: option.socketAddress({ help: "The agent's admin port on this node.", fallback: localAgent }),
  controller: option.socketAddress({
    help: "The controller's admin port on this machine.",
    fallback: localController,
  }),
  node: option.text({
    help: "On a cluster: whose agent is asked. A node, an agent's pod, or any pod as NAMESPACE/NAME.",
    metavar: 'NODE',
    fallback: '',
  }),
  kubeconfig: option.text({
    help: 'The cluster, by its kubeconfig; none: as kubectl finds it.',
    metavar: 'FILE',
    fallback: '',
  }),
  context: option.text({ help: 'Context of the kubeconfig; none: the current one.', fallback: '' }),
  meshNamespace: option.text({
    help: 'Namespace of agents and controllers (-i).',
    metavar: 'NAME',
    fallback: meshNamespace,
  }),
  kubectl: option.text({ help: 'The kubectl to ask with.', metavar: 'FILE', fallback: 'kubectl' }),
};

export interface Target {
  readonly agent: AdminClient;
  readonly controller: AdminClient;
  /** Null: this machine's own agent and controller are asked. */
  readonly cluster: Cluster | null;
  /** The cluster's node, or pod, that is meant; empty: none in particular. */
  readonly node: string;
}

/** This machine's own programs. */
export function localTarget(agent = localAgent, controller = localController): Target {
  return {
    agent: new AdminClient({ program: 'agent', at: agent }),
    controller: new AdminClient({ program: 'controller', at: controller }),
    cluster: null,
    node: '',
  };
}

/** Who is asked: this machine, or a cluster where an option names one, or where nobody listens here and kubectl has a cluster. */
export async function openTarget(
  values: OptionValues<typeof targetOptions>,
  deps: { readonly env: Readonly<Record<string, string | undefined>>; readonly isAnyNode: boolean },
): Promise<Target> {
  const { agent, controller, node } = values;
  if (!isClusterNamed(values) && !(await isClusterMeant(values, deps.env)))
    return localTarget(agent, controller);
  const kubectl = new Kubectl({ ...values, program: values.kubectl });
  const cluster = new Cluster({ namespace: values.meshNamespace }, { kubectl });
  return { agent: cluster.agent(node, deps.isAnyNode), controller: cluster.controller(), cluster, node };
}

function isClusterNamed(values: OptionValues<typeof targetOptions>): boolean {
  const { node, kubeconfig, context } = values;
  return [node, kubeconfig, context].some((text) => text !== '') || values.meshNamespace !== meshNamespace;
}

async function isClusterMeant(
  { agent, controller }: OptionValues<typeof targetOptions>,
  env: Readonly<Record<string, string | undefined>>,
): Promise<boolean> {
  // By identity: an address that was named is another object.
  if (agent !== localAgent || controller !== localController) return false;
  const isConfigured = env['KUBECONFIG'] || (env['HOME'] && existsSync(join(env['HOME'], '.kube/config')));
  if (!isConfigured) return false;
  const listen = await Promise.all([isListening(localAgent), isListening(localController)]);
  return !listen.includes(true);
}

function isListening({ address, port }: SocketAddress): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, timeout: probeTimeoutMs });
    const end = (isThere: boolean) => {
      socket.destroy();
      resolve(isThere);
    };
    socket.once('connect', () => end(true));
    socket.once('timeout', () => end(false));
    socket.once('error', () => end(false));
  });
}
