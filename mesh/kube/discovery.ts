import type { ApiClient } from './client.js';
import { KubeError, statusOf } from './errors.js';
import { recordOf, textOf } from './events.js';
import type { Place, WatchedKind } from './types.js';

/** Kinds of one API group are looked for together: they share an answer this long. */
const FRESH_MS = 2_000;

interface Resource {
  readonly name: string;
  readonly namespaced: boolean;
}

interface Answer {
  readonly askedMs: number;
  readonly resources: Promise<ReadonlyMap<string, Resource>>;
}

/** Which kinds the API server serves, and where. */
export class Discovery {
  readonly #client: ApiClient;
  /** By apiVersion. */
  readonly #answers: Map<string, Answer>;

  constructor(deps: { readonly client: ApiClient }) {
    this.#client = deps.client;
    this.#answers = new Map();
  }

  /** Where the kind's first version that is served is; null: none is. @throws KubeError */
  async find(watched: WatchedKind, signal: AbortSignal): Promise<Place | null> {
    for (const apiVersion of watched.apiVersions) {
      const resource = (await this.#resources(apiVersion, signal)).get(watched.kind);
      if (resource === undefined) continue;
      const namespace =
        watched.namespace !== undefined && resource.namespaced ? `/namespaces/${watched.namespace}` : '';
      return { apiVersion, path: `${rootOf(apiVersion)}${namespace}/${resource.name}` };
    }
    return null;
  }

  #resources(apiVersion: string, signal: AbortSignal): Promise<ReadonlyMap<string, Resource>> {
    const known = this.#answers.get(apiVersion);
    const nowMs = performance.now();
    if (known !== undefined && nowMs - known.askedMs < FRESH_MS) return known.resources;
    const resources = this.#ask(apiVersion, signal);
    this.#answers.set(apiVersion, { askedMs: nowMs, resources });
    // A failure is an answer to those who wait for it, not to those who come later.
    resources.catch(() => this.#answers.delete(apiVersion));
    return resources;
  }

  async #ask(apiVersion: string, signal: AbortSignal): Promise<ReadonlyMap<string, Resource>> {
    const path = rootOf(apiVersion);
    let answer: unknown;
    try {
      answer = await this.#client.request({ path, signal });
    } catch (error) {
      if (statusOf(error) === 404) return new Map();
      throw error;
    }
    const list = recordOf(answer)?.['resources'];
    if (!Array.isArray(list)) throw new KubeError('KUBE_PROTOCOL', `${path} lists no resources`, { path });
    const resources = list.map(recordOf).filter((one) => one !== undefined);
    return new Map(
      resources
        .filter((one) => !textOf(one['name']).includes('/') && isWatchable(one['verbs']))
        .map((one) => [
          textOf(one['kind']),
          { name: textOf(one['name']), namespaced: one['namespaced'] === true },
        ]),
    );
  }
}

function rootOf(apiVersion: string): string {
  return apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
}

function isWatchable(verbs: unknown): boolean {
  return Array.isArray(verbs) && verbs.includes('list') && verbs.includes('watch');
}
