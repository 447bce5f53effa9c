import { type ApiClient, recordOf, statusOf, textOf } from '../../mesh/kube/index.js';
import { WRITE_TIMEOUT_MS } from '../../mesh/kube-write/index.js';

/**
 * Writes into every webhook of a ValidatingWebhookConfiguration whose certificates to trust. False: it was so already, or there is no such configuration.
 * @throws KubeError, 409 where somebody else has written meanwhile
 */
export async function publishCaBundle(
  client: Pick<ApiClient, 'request'>,
  name: string,
  bundle: string,
): Promise<boolean> {
  const path = `/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/${name}`;
  const signal = AbortSignal.timeout(WRITE_TIMEOUT_MS);
  const configuration = await tryGet(client, path, signal);
  if (configuration === null) return false;
  const caBundle = Buffer.from(bundle).toString('base64');
  const webhooks = Array.isArray(configuration['webhooks']) ? configuration['webhooks'].map(recordOf) : [];
  const stale = webhooks.flatMap((webhook, index) => {
    const target = recordOf(webhook?.['clientConfig']) ?? {};
    return target['caBundle'] === caBundle ? [] : [index];
  });
  if (stale.length === 0) return false;
  const value = textOf(recordOf(configuration['metadata'])?.['resourceVersion']);
  const body = [
    // Indices are of what was read.
    { op: 'test', path: '/metadata/resourceVersion', value },
    ...stale.map((index) => ({
      op: 'add',
      path: `/webhooks/${index}/clientConfig/caBundle`,
      value: caBundle,
    })),
  ];
  await client.request({ method: 'PATCH', path, contentType: 'application/json-patch+json', body, signal });
  return true;
}

async function tryGet(
  client: Pick<ApiClient, 'request'>,
  path: string,
  signal: AbortSignal,
): Promise<Record<string, unknown> | null> {
  try {
    return recordOf(await client.request({ path, signal })) ?? null;
  } catch (error) {
    if (statusOf(error) === 404) return null;
    throw error;
  }
}
