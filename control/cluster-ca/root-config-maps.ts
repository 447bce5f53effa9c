import { messageOf } from '../../mesh/common/errors.js';
import {
  type ApiClient,
  BACKOFF_DEFAULTS,
  Backoff,
  KUBERNETES_SOURCE_DEFAULTS,
  KubernetesSource,
} from '../../mesh/kube/index.js';
import type { Leadership } from '../../mesh/kube-write/index.js';
import type { Log } from '../../mesh/log/index.js';
import type { Decoded, RawObject, SourceBatch } from '../../mesh/manifests/types.js';
import { type Authority, bundleOf } from '../ca/index.js';

export interface RootConfigMapsOptions {
  /** Of the ConfigMap in each namespace. */
  readonly name: string;
  /** Writes at once. */
  readonly concurrency: number;
}

export const ROOT_CONFIG_MAPS_DEFAULTS: RootConfigMapsOptions = {
  name: 'culvert-ca-root-cert',
  concurrency: 4,
};

export interface RootConfigMapsDeps {
  readonly client: ApiClient;
  readonly authority: Authority;
  readonly leadership: Leadership;
  readonly log: Log;
}

/** Namespaces, and the ConfigMaps that are ours in them. */
type Item =
  | { readonly kind: 'Namespace'; readonly name: string; readonly isEnding: boolean }
  | { readonly kind: 'ConfigMap'; readonly namespace: string; readonly bundle: string };

const KEY = 'root-cert.pem';
const OWNER = 'culvert-controller';

/** The mesh's roots as a ConfigMap in every namespace: made when a namespace comes, set right when changed or removed, rewritten when the roots change. One replica writes. */
export class RootConfigMaps {
  readonly #options: RootConfigMapsOptions;
  readonly #deps: RootConfigMapsDeps;
  readonly #source: KubernetesSource<Item>;
  readonly #unsubscribe: readonly (() => void)[];
  /** Where there may be something to do. */
  readonly #dirty = new Set<string>();
  /** Where a write failed: each waits for itself, so that one tenant's obstinate ConfigMap holds up nobody else. */
  readonly #failing = new Map<string, { readonly backoff: Backoff; timer: NodeJS.Timeout | null }>();
  #writes = 0;
  #isStopped = false;

  constructor(options: RootConfigMapsOptions, deps: RootConfigMapsDeps) {
    this.#options = options;
    this.#deps = deps;
    const kinds = [
      { kind: 'Namespace', apiVersions: ['v1'] },
      { kind: 'ConfigMap', apiVersions: ['v1'], fieldSelector: `metadata.name=${options.name}` },
    ];
    this.#source = new KubernetesSource<Item>(
      { ...KUBERNETES_SOURCE_DEFAULTS, kinds },
      { client: deps.client, decode, onBatch: (batch) => this.#changed(batch), log: deps.log },
    );
    this.#unsubscribe = [
      deps.authority.subscribe(() => this.#lookEverywhere()),
      deps.leadership.subscribe({ onLead: () => this.#lookEverywhere(), onFollow: () => {} }),
    ];
  }

  start(): void {
    void this.#source.start();
  }

  stop(): void {
    this.#isStopped = true;
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    for (const { timer } of this.#failing.values()) if (timer !== null) clearTimeout(timer);
    this.#source.stop();
  }

  #changed({ upserted, removed }: SourceBatch<Item>): void {
    for (const item of upserted.values())
      this.#dirty.add(item.kind === 'Namespace' ? item.name : item.namespace);
    for (const key of removed) {
      const [kind, namespace] = key.split('/') as [string, string];
      if (kind === 'ConfigMap') this.#dirty.add(namespace);
    }
    this.#work();
  }

  #lookEverywhere(): void {
    for (const item of this.#source.values()) if (item.kind === 'Namespace') this.#dirty.add(item.name);
    this.#work();
  }

  #work(): void {
    for (const namespace of this.#dirty) {
      if (this.#writes >= this.#options.concurrency || this.#isStopped) return;
      this.#dirty.delete(namespace);
      const isWaiting = this.#failing.get(namespace)?.timer != null;
      if (!isWaiting && this.#isWanting(namespace)) void this.#write(namespace);
    }
  }

  /** Who does not lead forgets it: who comes to lead looks everywhere. */
  #isWanting(namespace: string): boolean {
    const found = this.#source.get(`Namespace/${namespace}`);
    if (found?.kind !== 'Namespace' || found.isEnding || !this.#deps.leadership.isLeader) return false;
    const map = this.#source.get(`ConfigMap/${namespace}/${this.#options.name}`);
    return map?.kind !== 'ConfigMap' || map.bundle !== bundleOf(this.#deps.authority);
  }

  async #write(namespace: string): Promise<void> {
    const { client, log, authority } = this.#deps;
    const { name } = this.#options;
    this.#writes++;
    try {
      await client.request({
        method: 'PATCH',
        path: `/api/v1/namespaces/${namespace}/configmaps/${name}`,
        query: { fieldManager: OWNER, force: 'true' },
        contentType: 'application/apply-patch+yaml',
        body: {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { name, labels: { 'app.kubernetes.io/managed-by': 'culvert' } },
          data: { [KEY]: bundleOf(authority) },
        },
      });
      this.#failing.delete(namespace);
    } catch (error) {
      log.warn({ namespace, reason: messageOf(error) }, "the mesh's roots could not be written; tried again");
      this.#failed(namespace);
    }
    this.#writes--;
    this.#work();
  }

  #failed(namespace: string): void {
    if (this.#isStopped) return;
    const failing = this.#failing.get(namespace) ?? {
      backoff: new Backoff(BACKOFF_DEFAULTS, { random: Math.random }),
      timer: null,
    };
    this.#failing.set(namespace, failing);
    failing.timer = setTimeout(() => {
      failing.timer = null;
      if (!this.#isWanting(namespace)) this.#failing.delete(namespace);
      this.#dirty.add(namespace);
      this.#work();
    }, failing.backoff.next()).unref();
  }
}

function decode({ kind, metadata, ...object }: RawObject): Decoded<Item> {
  const { name } = metadata;
  if (kind === 'Namespace') {
    const isEnding = metadata['deletionTimestamp'] !== undefined;
    return { outcome: 'object', key: `Namespace/${name}`, value: { kind, name, isEnding } };
  }
  const namespace = String(metadata['namespace']);
  const data = object['data'] as Readonly<Record<string, unknown>> | undefined;
  const value = { kind: 'ConfigMap', namespace, bundle: String(data?.[KEY] ?? '') } as const;
  return { outcome: 'object', key: `ConfigMap/${namespace}/${name}`, value };
}
