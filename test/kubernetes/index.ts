export { ApiClient, ApiError, type KubeObject } from './api.js';
export { ensureKubernetes, type KubernetesBinaries, VERSIONS } from './binaries.js';
export type { CertificateRequest, Credentials } from './certificates.js';
export { ClusterCa, writeKubeconfig } from './certificates.js';
export {
  Cluster,
  type ClusterNode,
  type ClusterNodeOptions,
  type ClusterOptions,
  startCluster,
} from './cluster.js';
export { CLUSTER_DOMAIN, type Component, SERVICE_RANGES } from './commands.js';
export { ControlPlane, type ControlPlaneOptions, startControlPlane } from './control-plane.js';
export { defaultImages } from './images.js';
export type { Image, ImageTable } from './kubelet/types.js';
