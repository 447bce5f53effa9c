import type { Log } from '../../mesh/log/index.js';
import { findCgroupRoot, findPodsParent, listPodCgroups } from './cgroups.js';
import { FilesPodSource } from './files-pod-source.js';
import { KubernetesPodSource } from './kubernetes-pod-source.js';
import { PodSnapshot } from './pod-snapshot.js';
import type { PodSource } from './types.js';

export interface PodSourceOptions {
  readonly source: 'files' | 'kubernetes';
  /** This node, as in spec.nodeName of its pods. */
  readonly node: string;
  /** Source `files`: the folder. */
  readonly manifests: string;
  /** Source `kubernetes`: a kubeconfig; empty: as the pod that we are in. */
  readonly kubeconfig: string;
  /** Source `kubernetes`: folder, root only, where pods are saved for a start without the API server. */
  readonly runDir: string;
  /** Where cgroup v2 is mounted, and the parent of all pod cgroups; empty: found. */
  readonly cgroupRoot: string;
  readonly podsCgroup: string;
}

/** The pod source that the options name, not started. */
export function openPodSource(options: PodSourceOptions, deps: { readonly log: Log }): PodSource {
  const { source, node: nodeName, manifests: folder, kubeconfig, cgroupRoot, podsCgroup } = options;
  if (source === 'files') return new FilesPodSource({ folder, nodeName }, deps);
  const liveUids = () => {
    const parent = findPodsParent(findCgroupRoot(cgroupRoot || null), podsCgroup || null);
    return listPodCgroups(parent).pods.keys();
  };
  const snapshot = new PodSnapshot({ folder: options.runDir, nodeName }, { ...deps, liveUids });
  return new KubernetesPodSource({ kubeconfig, nodeName }, { ...deps, snapshot });
}
