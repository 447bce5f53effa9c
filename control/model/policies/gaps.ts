import { isEnrolled, readAnnotations } from '../../../mesh/manifests/index.js';
import type { Namespace, Pod } from '../types.js';

/** Where policies are not judged before a pod: nowhere, or for plain text to these ports of its own (0: all) not. */
export type Gap =
  | { readonly kind: 'outside' }
  | { readonly kind: 'ports'; readonly ports: readonly number[] };

const OUTSIDE: Gap = { kind: 'outside' };

/** Null: its agent judges whatever comes (or the pod has ended). */
export function gapOf(pod: Pod, namespace: Namespace | undefined): Gap | null {
  if (pod.phase === 'Succeeded' || pod.phase === 'Failed') return null;
  if (!isEnrolled(pod, namespace)) return OUTSIDE;
  const { inboundPorts } = readAnnotations(pod.annotations).exclusions;
  return inboundPorts.length === 0 ? null : { kind: 'ports', ports: inboundPorts };
}
