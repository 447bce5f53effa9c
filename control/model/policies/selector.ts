import type { Fields, Labels } from '../../../mesh/manifests/index.js';

/** `selector.matchLabels` of a policy; null where it has no labels and so takes every workload. */
export function readSelector(spec: Fields): Labels | null {
  const selector = spec.object('selector').only(['matchLabels']);
  const labels = selector.textMap('matchLabels');
  for (const [label, value] of Object.entries(labels)) {
    if (label === '') selector.wrong('matchLabels', 'has a label without a name');
    if (`${label}${value}`.includes('*')) selector.wrong('matchLabels', `${label}: '*' matches nothing here`);
  }
  return Object.keys(labels).length === 0 ? null : labels;
}
