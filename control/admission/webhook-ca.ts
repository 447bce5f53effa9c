import { createPrivateKey, type KeyObject } from 'node:crypto';
import { messageOf } from '../../mesh/common/errors.js';
import {
  derToPem,
  generateKeyPair,
  issueCertificate,
  pemToDer,
  readCertificate,
} from '../../mesh/identity/index.js';
import { type ApiClient, recordOf, statusOf, textOf } from '../../mesh/kube/index.js';
import { AdmissionError } from './errors.js';

/** In the controller's namespace: authority of the webhook's certificates, shared by all replicas. Nothing else trusts it. */
export const WEBHOOK_CA_SECRET = 'culvert-webhook-ca';

/** A root that signs the webhook's certificates. */
export interface WebhookCa {
  readonly privateKey: KeyObject;
  /** DER. */
  readonly certificate: Buffer;
  readonly notAfterMs: number;
}

const YEAR_MS = 365 * 24 * 3_600_000;
const LIFETIME_MS = 10 * YEAR_MS;
/** Before its end a new one is made. */
const RENEW_BEFORE_MS = YEAR_MS;
/** Clocks of API servers may be behind ours. */
const BACKDATE_MS = 60_000;
const TIMEOUT_MS = 10_000;

/** The one in the Secret; made where there is none, and anew before it ends. Of replicas that do so at once one wins, and all have its. @throws KubeError, AdmissionError */
export async function loadWebhookCa(
  client: Pick<ApiClient, 'request'>,
  namespace: string,
  nowMs: number,
): Promise<WebhookCa> {
  const path = `/api/v1/namespaces/${namespace}/secrets`;
  const found = await tryRead(client, `${path}/${WEBHOOK_CA_SECRET}`);
  const known = found === null ? null : parse(found);
  if (known !== null && known.notAfterMs - nowMs > RENEW_BEFORE_MS) return known;
  const metadata = recordOf(found?.['metadata']);
  const body = { ...secretOf(create(nowMs), namespace), ...(metadata === undefined ? {} : { metadata }) };
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const written =
      metadata === undefined
        ? await client.request({ method: 'POST', path, body, signal })
        : await client.request({ method: 'PUT', path: `${path}/${WEBHOOK_CA_SECRET}`, body, signal });
    return parse(recordOf(written) ?? {});
  } catch (error) {
    if (statusOf(error) !== 409) throw error;
    return parse((await tryRead(client, `${path}/${WEBHOOK_CA_SECRET}`)) ?? {});
  }
}

async function tryRead(
  client: Pick<ApiClient, 'request'>,
  path: string,
): Promise<Record<string, unknown> | null> {
  try {
    return recordOf(await client.request({ path, signal: AbortSignal.timeout(TIMEOUT_MS) })) ?? null;
  } catch (error) {
    if (statusOf(error) === 404) return null;
    throw error;
  }
}

function create(nowMs: number): { readonly key: string; readonly certificate: string } {
  const keys = generateKeyPair();
  const der = issueCertificate(
    {
      publicKey: keys.publicKey,
      commonName: 'Culvert webhook',
      notBeforeMs: nowMs - BACKDATE_MS,
      notAfterMs: nowMs + LIFETIME_MS,
      ca: {},
    },
    { privateKey: keys.privateKey },
  );
  const key = keys.privateKey.export({ type: 'pkcs8', format: 'pem' });
  return { key: String(key), certificate: derToPem(der, 'CERTIFICATE') };
}

function secretOf(ca: { readonly key: string; readonly certificate: string }, namespace: string): object {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name: WEBHOOK_CA_SECRET,
      namespace,
      labels: { 'app.kubernetes.io/part-of': 'culvert' },
    },
    type: 'Opaque',
    data: { 'ca-cert.pem': base64(ca.certificate), 'ca-key.pem': base64(ca.key) },
  };
}

function parse(secret: Record<string, unknown>): WebhookCa {
  const data = recordOf(secret['data']) ?? {};
  const read = (field: string) => Buffer.from(textOf(data[field]), 'base64').toString('utf8');
  try {
    const privateKey = createPrivateKey(read('ca-key.pem'));
    const certificate = pemToDer(read('ca-cert.pem'), 'CERTIFICATE')[0]!;
    return { privateKey, certificate, notAfterMs: readCertificate(certificate).notAfterMs };
  } catch (error) {
    throw new AdmissionError(
      'WEBHOOK_CA',
      `Secret ${WEBHOOK_CA_SECRET}: ${messageOf(error)}; delete it, and another is made`,
      { secret: WEBHOOK_CA_SECRET },
      error,
    );
  }
}
