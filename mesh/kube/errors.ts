import { MeshError } from '../common/errors.js';

export type KubeErrorCode =
  | 'KUBE_ACCESS' // kubeconfig or service account cannot be used; the message says which field or file
  | 'KUBE_UNREACHABLE' // no connection, or no answer in time
  | 'KUBE_SILENT' // an answer or a watch that stalled
  | 'KUBE_REFUSED' // an answer other than success; `data.status` and `data.reason` are the API server's
  | 'KUBE_PROTOCOL'; // an answer that cannot be read

/** What went wrong between us and the API server. `data.path` names the request. */
export class KubeError extends MeshError<KubeErrorCode> {}

/** HTTP status of a refusal (also of one inside a watch); 0 for every other error. */
export function statusOf(error: unknown): number {
  return error instanceof KubeError ? Number(error.data['status'] ?? 0) : 0;
}
