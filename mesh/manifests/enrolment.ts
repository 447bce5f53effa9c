import type { Fields } from './fields.js';
import type { Labels } from './types.js';

/** Value `ambient` or `none`; on pods and namespaces. */
export const DATAPLANE_MODE_LABEL = 'istio.io/dataplane-mode';
/** Value `enabled`, by the agent of the pod's node: its traffic is truly captured. */
export const REDIRECTION_ANNOTATION = 'ambient.istio.io/redirection';
/** Their pods are never in the mesh, whatever their labels. */
export const EXCLUDED_NAMESPACES: readonly string[] = ['kube-system'];

const SIDECAR_ANNOTATION = 'sidecar.istio.io/status';

/** What of a pod decides. */
export interface EnrolmentFacts {
  readonly namespace: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  readonly hostNetwork: boolean;
}

/**
 * Whether the pod is in the mesh (mesh-apis.md 1.1): its own label before its namespace's; never a pod of the host's network, one with a
 * sidecar, or one of an excluded namespace. Agents capture and the controller announces by this one rule.
 */
export function isEnrolled(
  pod: EnrolmentFacts,
  namespace: { readonly labels: Labels } | undefined,
  excludedNamespaces: readonly string[] = EXCLUDED_NAMESPACES,
): boolean {
  return whyOutside(pod, namespace, excludedNamespaces) === '';
}

/** For people: why the pod is not in the mesh; empty: it is. */
export function whyOutside(
  pod: EnrolmentFacts,
  namespace: { readonly labels: Labels } | undefined,
  excludedNamespaces: readonly string[] = EXCLUDED_NAMESPACES,
): string {
  if (pod.hostNetwork) return 'host network';
  if (SIDECAR_ANNOTATION in pod.annotations) return 'has a sidecar';
  if (excludedNamespaces.includes(pod.namespace)) return 'namespace is excluded';
  const own = dataplaneModeOf(pod.labels);
  const inherited = dataplaneModeOf(namespace?.labels ?? {});
  if ((own ?? inherited) === 'ambient') return '';
  if (own === 'none') return 'label none';
  return inherited === 'none' ? 'namespace has label none' : 'namespace not labelled';
}

/** A value of the label that means nothing is a mistake (`Ambient`), and must not be read as "not in the mesh": the object is invalid. */
export function checkDataplaneMode(metadata: Fields, labels: Labels): void {
  const mode = labels[DATAPLANE_MODE_LABEL] ?? '';
  if (mode !== '' && dataplaneModeOf(labels) === null)
    metadata
      .object('labels')
      .wrong(DATAPLANE_MODE_LABEL, `is "${mode}": only "ambient" and "none" are known`);
}

/** Null where the label is absent; so are values that mean nothing. */
export function dataplaneModeOf(labels: Labels): 'ambient' | 'none' | null {
  const mode = labels[DATAPLANE_MODE_LABEL];
  return mode === 'ambient' || mode === 'none' ? mode : null;
}
