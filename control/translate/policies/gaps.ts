import { keyOf } from '../../../mesh/manifests/index.js';
import {
  type AuthorizationPolicy,
  type Gap,
  gapOf,
  type Limitation,
  type Model,
  type PeerAuthentication,
  type Pod,
} from '../../model/index.js';

/** A report names so many pods. */
const NAMED = 3;

/**
 * Where a policy is not enforced though it takes pods there: before pods outside of the mesh, and at ports that their annotations exclude. Of the
 * whole mesh's policies nothing is said: the mesh is what they are for.
 */
export function gapsOf(
  policy: AuthorizationPolicy | PeerAuthentication,
  model: Model,
): readonly Limitation[] {
  const outside: string[] = [];
  const atPorts: string[] = [];
  for (const pod of podsTakenBy(policy, model)) {
    const gap = gapOf(pod, model.namespace(pod.namespace));
    if (gap?.kind === 'outside') outside.push(`${pod.namespace}/${pod.name}`);
    if (gap?.kind === 'ports') atPorts.push(`${pod.namespace}/${pod.name} (${portsText(gap)})`);
  }
  const field = fieldOf(policy);
  const limitations: Limitation[] = [];
  if (outside.length > 0)
    limitations.push({
      field,
      reason: `takes pods outside of the mesh: ${some(outside)}`,
      effect: 'not enforced there: whatever connects to them gets in',
    });
  if (atPorts.length > 0)
    limitations.push({
      field,
      reason: `takes pods whose annotations exclude ports: ${some(atPorts)}`,
      effect: 'not enforced there against plain text',
    });
  return limitations;
}

function podsTakenBy(policy: AuthorizationPolicy | PeerAuthentication, model: Model): readonly Pod[] {
  const { relations, policies } = model;
  const targets = policy.kind === 'AuthorizationPolicy' ? policy.targets : [];
  const services = targets.flatMap(({ kind, name }) => {
    const key = keyOf(kind, policy.namespace, name);
    return model.service(key) ?? model.serviceEntry(key) ?? [];
  });
  const taken =
    targets.length > 0 ? services.flatMap((one) => relations.selectedBy(one)) : policies.takenBy(policy);
  return taken.filter((one) => one.kind === 'Pod');
}

function fieldOf(policy: AuthorizationPolicy | PeerAuthentication): string {
  if (policy.selector !== null) return 'spec.selector';
  return policy.kind === 'AuthorizationPolicy' && policy.targets.length > 0 ? 'spec.targetRefs' : '';
}

function portsText({ ports }: Extract<Gap, { kind: 'ports' }>): string {
  return ports.includes(0) ? 'all' : ports.join(', ');
}

/** No numbers of what is left out: the text, and with it the log's line, stays while pods come and go. */
function some(names: readonly string[]): string {
  const shown = [...new Set(names)].sort().slice(0, NAMED).join(', ');
  return names.length > NAMED ? `${shown} and others` : shown;
}
