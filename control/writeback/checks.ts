import type { ObjectReference } from '../../mesh/kube-write/index.js';
import {
  DATAPLANE_MODE_LABEL,
  isEnrolled,
  keyOf,
  REDIRECTION_ANNOTATION,
} from '../../mesh/manifests/index.js';
import type { Model, Pod } from '../model/index.js';
import type { Facts } from './facts.js';
import {
  admits,
  admitsOtherThan,
  type NetworkPolicy,
  type NetworkRule,
  portsText,
  sizeOf,
  takes,
} from './network-policy.js';
import type { Finding } from './types.js';

/** What the checks look at; all of it as it is now. */
export interface CheckContext {
  readonly model: Pick<Model, 'namespace' | 'podsOnNode' | 'relations'>;
  readonly facts: Facts;
  readonly isAgent: (pod: Pod) => boolean;
  readonly networkPolicies: Iterable<NetworkPolicy>;
}

const HBONE_PORT = 15008;
const HELD_MS = 10_000;
const UNCAPTURED_MS = 60_000;

/** Of an enrolled pod, what lets its traffic pass the mesh by (mesh-apis.md 1.1). */
const EXCLUSIONS = [
  'traffic.sidecar.istio.io/excludeOutboundPorts',
  'traffic.sidecar.istio.io/excludeOutboundIPRanges',
  'traffic.sidecar.istio.io/excludeInboundPorts',
  'ambient.istio.io/bypass-inbound-capture',
] as const;

/** Everything that people should know of nodes, pods and NetworkPolicies. */
export function* findingsOf(context: CheckContext): Iterable<Finding> {
  for (const key of context.facts.keys)
    if (key.startsWith('Node/')) yield* ofNode(context, key.slice('Node/'.length));
  yield* ofNetworkPolicies(context);
}

function* ofNode(context: CheckContext, node: string): Iterable<Finding> {
  const pods = [...context.model.podsOnNode(node)];
  const agents = pods.filter(context.isAgent);
  const isServed = agents.some(({ ready }) => ready);
  const held: Pod[] = [];
  for (const pod of pods) {
    if (pod.phase === 'Succeeded' || pod.phase === 'Failed') continue;
    yield* ofExclusions(context, pod);
    if (!isMeshed(context, pod) || pod.annotations[REDIRECTION_ANNOTATION] === 'enabled') continue;
    if (!isServed) held.push(pod);
    else if (pod.phase === 'Running') yield uncaptured(pod, node);
  }
  if (held.length > 0) yield heldPods(context, node, agents.length, held);
}

function heldPods({ facts }: CheckContext, node: string, agents: number, held: readonly Pod[]): Finding {
  const why = agents === 0 ? 'there is no agent on it' : 'its agent is not ready';
  const uid = facts.get(keyOf('Node', '', node))?.object.uid ?? '';
  return {
    // As the kubelet names nodes in events: kubectl looks for either.
    regarding: { apiVersion: 'v1', kind: 'Node', namespace: '', name: node, uid },
    type: 'Warning',
    reason: 'PodsHeld',
    action: 'Capture',
    note: `${named(held)} of the mesh ${held.length === 1 ? 'waits' : 'wait'} on this node, and ${why}: see the pods culvert-agent`,
    afterMs: HELD_MS,
  };
}

function uncaptured(pod: Pod, node: string): Finding {
  return {
    regarding: referenceOf(pod),
    type: 'Warning',
    reason: 'NotCaptured',
    action: 'Capture',
    note: `is in the mesh by its labels, but the agent of node ${node} does not have it: peers of the mesh do not reach it; 'culvertctl pods' on that node says why`,
    afterMs: UNCAPTURED_MS,
  };
}

function* ofExclusions(context: CheckContext, pod: Pod): Iterable<Finding> {
  const told = (note: string): Finding => ({
    regarding: referenceOf(pod),
    type: 'Normal',
    reason: 'ExclusionUsed',
    action: 'Capture',
    note,
    afterMs: 0,
  });
  const namespace = context.model.namespace(pod.namespace);
  if (pod.labels[DATAPLANE_MODE_LABEL] === 'none') {
    const { [DATAPLANE_MODE_LABEL]: _none, ...labels } = pod.labels;
    if (!context.isAgent(pod) && isEnrolled({ ...pod, labels }, namespace))
      yield told(`label ${DATAPLANE_MODE_LABEL}=none keeps it out of the mesh that its namespace is in`);
  } else if (isEnrolled(pod, namespace)) {
    const used = EXCLUSIONS.filter((name) => isUsed(pod.annotations[name]));
    if (used.length > 0)
      yield told(`passes the mesh by: ${used.map((name) => `${name}=${pod.annotations[name]}`).join('; ')}`);
  }
}

function isUsed(value: string | undefined): boolean {
  return value !== undefined && value.trim() !== '' && value.trim() !== 'false';
}

/** Policies, rules, ports and values of one namespace: whoever may write policies there must not keep the controller busy with them. */
const MAX_SIZE = 2000;

/** Policies add up: what one does not admit to a pod, another may. */
function* ofNetworkPolicies(context: CheckContext): Iterable<Finding> {
  for (const [namespace, policies] of byNamespace(context.networkPolicies)) {
    const troubles = new Map<NetworkPolicy, { readonly text: string; readonly pods: Pod[] }>();
    for (const pod of context.model.relations.ofNamespace(namespace)) {
      if (pod.kind !== 'Pod' || !isMeshed(context, pod)) continue;
      const own = policies.filter(({ podSelector }) => takes(podSelector, pod.labels));
      for (const [policy, text] of troublesOf(own)) {
        const known = troubles.get(policy) ?? { text, pods: [] };
        known.pods.push(pod);
        troubles.set(policy, known);
      }
    }
    for (const [policy, { text, pods }] of troubles) yield blocking(context, policy, text, pods);
  }
}

/** Without namespaces that have too much to look at: half of what adds up says nothing. */
function* byNamespace(policies: Iterable<NetworkPolicy>): Iterable<readonly [string, NetworkPolicy[]]> {
  const found = new Map<string, NetworkPolicy[]>();
  for (const policy of policies) {
    const known = found.get(policy.namespace);
    if (known === undefined) found.set(policy.namespace, [policy]);
    else known.push(policy);
  }
  for (const entry of found)
    if (entry[1].reduce((sum, policy) => sum + sizeOf(policy), 0) <= MAX_SIZE) yield entry;
}

function blocking(
  { facts }: CheckContext,
  policy: NetworkPolicy,
  text: string,
  pods: readonly Pod[],
): Finding {
  const { kind, namespace, name } = policy;
  const uid = facts.get(keyOf(kind, namespace, name))?.object.uid ?? '';
  return {
    regarding: { apiVersion: 'networking.k8s.io/v1', kind, namespace, name, uid },
    type: 'Warning',
    reason: 'BlocksMesh',
    action: 'Check',
    note: `${text} (${named(pods)} of the mesh): connections between pods of the mesh go to port ${HBONE_PORT}, others and probes to the application's own; admit both`,
    afterMs: 0,
  };
}

/** What is wrong with those that take one pod. */
function troublesOf(policies: readonly NetworkPolicy[]): ReadonlyMap<NetworkPolicy, string> {
  const troubles = new Map<NetworkPolicy, string>();
  for (const direction of ['ingress', 'egress'] as const) {
    const rules = policies.flatMap((one) => one[direction] ?? []);
    const tunnelled = new Set(rules.filter((one) => admits(one, HBONE_PORT)).map(({ peers }) => peers));
    const admitsOthers = rules.some((one) => admitsOtherThan(one, HBONE_PORT));
    for (const policy of policies)
      for (const rule of policy[direction] ?? []) {
        const isTunnelled = tunnelled.has(rule.peers) || tunnelled.has('');
        const text = troubleOfRule(rule, isTunnelled, admitsOthers);
        if (text !== null && !troubles.has(policy)) troubles.set(policy, `${direction} ${text}`);
      }
  }
  return troubles;
}

/** `isTunnelled`: some rule admits the tunnel's port from the same peers, or from all. */
function troubleOfRule(rule: NetworkRule, isTunnelled: boolean, admitsOthers: boolean): string | null {
  if (rule.ports?.length === 0) return null;
  if (!isTunnelled) return isNamesOnly(rule) ? null : `admits ${portsText(rule)} and not ${HBONE_PORT}`;
  return admitsOthers ? null : `admits ${HBONE_PORT} only`;
}

/** DNS only, as nearly every egress policy has it: names are asked without a tunnel. */
function isNamesOnly({ ports }: NetworkRule): boolean {
  return ports?.every(({ first, last }) => first === 53 && last === 53) === true;
}

/** In the mesh, and with addresses of its own. */
function isMeshed({ model }: CheckContext, pod: Pod): boolean {
  return isEnrolled(pod, model.namespace(pod.namespace));
}

function referenceOf({ namespace, name, uid }: Pod): ObjectReference {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid };
}

function named(pods: readonly Pod[]): string {
  const [first] = pods;
  const rest = pods.length === 1 ? '' : ` and ${pods.length - 1} more`;
  return `pod ${first!.namespace}/${first!.name}${rest}`;
}
