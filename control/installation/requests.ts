import { statusOf } from '../../mesh/kube/index.js';
import type { Listed, Requests } from './types.js';

const PAGE = '500';
const NOT_FOUND = 404;

/** Null: there is none. @throws KubeError */
export async function tryGet<T>(client: Requests, path: string): Promise<T | null> {
  try {
    return (await client.request({ path })) as T;
  } catch (error) {
    if (statusOf(error) === NOT_FOUND) return null;
    throw error;
  }
}

/** False: there was none. @throws KubeError */
export async function tryDelete(
  client: Requests,
  path: string,
  query: Readonly<Record<string, string>> = {},
): Promise<boolean> {
  try {
    await client.request({ method: 'DELETE', path, query });
    return true;
  } catch (error) {
    if (statusOf(error) === NOT_FOUND) return false;
    throw error;
  }
}

/** All of a collection, page by page. @throws KubeError */
export async function listAll<T>(
  client: Requests,
  path: string,
  query: Readonly<Record<string, string>> = {},
): Promise<readonly T[]> {
  const found: T[] = [];
  let next = '';
  do {
    const page = next === '' ? {} : { continue: next };
    const list = (await client.request({ path, query: { ...query, limit: PAGE, ...page } })) as Listed<T>;
    found.push(...list.items);
    next = list.metadata.continue ?? '';
  } while (next !== '');
  return found;
}
