import type { Labels, Namespace, Pod } from './types.js';

const MODE = 'istio.io/dataplane-mode';
const SIDECAR = 'sidecar.istio.io/status';

/**
 * Whether the pod is in the mesh, by label (mesh-apis.md 1.1): the pod's own before its namespace's; never a pod of the host's network or one
 * with a sidecar. agent/capture decides by the same rule.
 */
export function isEnrolled(pod: Pod, namespace: Namespace | undefined): boolean {
  if (pod.hostNetwork || SIDECAR in pod.annotations) return false;
  return (modeOf(pod.labels) ?? modeOf(namespace?.labels ?? {})) === 'ambient';
}

/** Values that mean nothing count as absent. */
function modeOf(labels: Labels): 'ambient' | 'none' | null {
  const mode = labels[MODE];
  return mode === 'ambient' || mode === 'none' ? mode : null;
}
