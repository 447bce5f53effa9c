import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../common/errors.js';
import { KubeError } from './errors.js';
import type { ClusterAccess, Credentials } from './types.js';

const ACCOUNT_FOLDER = '/var/run/secrets/kubernetes.io/serviceaccount';

export interface InClusterOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where the pod's service account is mounted. */
  readonly folder?: string;
}

/** Access of a pod by its service account. @throws KubeError KUBE_ACCESS outside of a pod. */
export function inClusterAccess({ env, folder = ACCOUNT_FOLDER }: InClusterOptions): ClusterAccess {
  const host = env['KUBERNETES_SERVICE_HOST'] ?? '';
  const port = env['KUBERNETES_SERVICE_PORT_HTTPS'] ?? env['KUBERNETES_SERVICE_PORT'] ?? '443';
  if (host === '')
    throw new KubeError(
      'KUBE_ACCESS',
      'not in a pod of a cluster (KUBERNETES_SERVICE_HOST is not set): name a kubeconfig',
    );
  const server = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const read = (): Credentials => ({
    server,
    ca: readText(join(folder, 'ca.crt')),
    token: readText(join(folder, 'token')).trim(),
    certificate: null,
    key: null,
    serverName: null,
  });
  return { origin: `service account at ${server}`, read };
}

/** @throws KubeError KUBE_ACCESS */
export function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new KubeError('KUBE_ACCESS', `${file} cannot be read: ${messageOf(error)}`, { file }, error);
  }
}
