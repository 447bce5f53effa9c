import type { Log } from '../../mesh/log/index.js';
import { FilesPodSource } from './files-pod-source.js';
import { KubernetesPodSource } from './kubernetes-pod-source.js';
import type { PodSource } from './types.js';

export interface PodSourceOptions {
  readonly source: 'files' | 'kubernetes';
  /** This node, as in spec.nodeName of its pods. */
  readonly node: string;
  /** Source `files`: the folder. */
  readonly manifests: string;
  /** Source `kubernetes`: a kubeconfig; empty: as the pod that we are in. */
  readonly kubeconfig: string;
}

/** The pod source that the options name, not started. */
export function openPodSource(options: PodSourceOptions, deps: { readonly log: Log }): PodSource {
  const { source, node: nodeName, manifests: folder, kubeconfig } = options;
  return source === 'files'
    ? new FilesPodSource({ folder, nodeName }, deps)
    : new KubernetesPodSource({ kubeconfig, nodeName }, deps);
}
