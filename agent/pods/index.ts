export {
  findCgroupRoot,
  findPodsParent,
  ownCgroup,
  type PodCgroup,
  podOfProcess,
  tryCgroupId,
} from './cgroups.js';
export { FilesPodSource, type FilesPodSourceOptions } from './files-pod-source.js';
export { findPlace, foreignNamespaces, type NodePlace } from './host-netns.js';
export { findKubeletCgroup, type KubeletSearch } from './kubelet.js';
export { KubernetesPodSource, type KubernetesPodSourceOptions } from './kubernetes-pod-source.js';
export { hasAddress, interfaceNames, podAddresses } from './namespace-facts.js';
export { openPodSource, type PodSourceOptions } from './open-pod-source.js';
export {
  type PodSighting,
  PodSightings,
  type SeenNamespace,
  tryNamespaceInode,
} from './pod-sightings.js';
export { PodSnapshot } from './pod-snapshot.js';
export {
  CaptureError,
  type CaptureErrorCode,
  type Exclusions,
  type LocalPod,
  noExclusions,
  type PodSource,
} from './types.js';
