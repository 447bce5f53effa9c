import { type ApiClient, recordOf } from '../kube/index.js';
import { WRITE_TIMEOUT_MS } from './lease.js';
import type { ObjectReference } from './types.js';

/** Whose fields they are, in the managedFields of what we write. */
export const FIELD_MANAGER = 'culvert';

/** What is to hold of an object's status. */
export interface StatusWrite {
  readonly object: ObjectReference;
  /** All that we say of it: what we said before and is not here goes. */
  readonly status: Readonly<Record<string, unknown>>;
  /** Refused with 409 unless the object is still at this version; absent: whatever it is. */
  readonly resourceVersion?: string;
}

/** The path of an object; `subresource` as `status`. */
export function pathOf({ apiVersion, kind, namespace, name }: ObjectReference, subresource = ''): string {
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const place = namespace === '' ? '' : `/namespaces/${namespace}`;
  const path = `${root}${place}/${resourceOf(kind)}/${name}`;
  return subresource === '' ? path : `${path}/${subresource}`;
}

/** The plural, as every kind that we write has it. */
function resourceOf(kind: string): string {
  const lower = kind.toLowerCase();
  return lower.endsWith('y') ? `${lower.slice(0, -1)}ies` : `${lower}s`;
}

/**
 * Server-side apply of an object's status; gives the object as it is then. An object of that name with another uid is not written (409), one that is gone is not
 * made (404). @throws KubeError
 */
export async function applyStatus(
  client: Pick<ApiClient, 'request'>,
  { object, status, resourceVersion }: StatusWrite,
): Promise<Record<string, unknown>> {
  const { apiVersion, kind, namespace, name, uid } = object;
  const metadata = {
    name,
    ...(namespace === '' ? {} : { namespace }),
    ...(uid === '' ? {} : { uid }),
    ...(resourceVersion === undefined ? {} : { resourceVersion }),
  };
  const answer = await client.request({
    method: 'PATCH',
    path: pathOf(object, 'status'),
    query: { fieldManager: FIELD_MANAGER, force: 'true' },
    contentType: 'application/apply-patch+yaml',
    body: { apiVersion, kind, metadata, status },
    signal: AbortSignal.timeout(WRITE_TIMEOUT_MS),
  });
  return recordOf(answer) ?? {};
}
