export { inClusterAccess } from './access.js';
export { BACKOFF_DEFAULTS, Backoff, type BackoffOptions } from './backoff.js';
export { API_CLIENT_DEFAULTS, ApiClient, type ApiClientOptions, type ApiRequest } from './client.js';
export { KubeError, type KubeErrorCode, statusOf } from './errors.js';
export { objectOf, recordOf, textOf } from './events.js';
export { watchedKindsOf } from './kinds.js';
export { kubeconfigAccess, openAccess } from './kubeconfig.js';
export {
  KUBERNETES_SOURCE_DEFAULTS,
  KubernetesSource,
  type KubernetesSourceDeps,
  type KubernetesSourceOptions,
} from './source.js';
export type { ClusterAccess, Credentials, KindStatus, Place, WatchedKind, WatchState } from './types.js';
