import { type ApiClient, KUBERNETES_SOURCE_DEFAULTS, KubernetesSource } from '../../mesh/kube/index.js';
import {
  type Leadership,
  WRITE_QUEUE_DEFAULTS,
  WRITE_TIMEOUT_MS,
  WriteQueue,
  type WriteQueueOptions,
} from '../../mesh/kube-write/index.js';
import type { Log } from '../../mesh/log/index.js';
import type { Decoded, RawObject, SourceBatch } from '../../mesh/manifests/types.js';
import { type Authority, bundleOf } from '../ca/index.js';

export interface RootConfigMapsOptions {
  /** Of the ConfigMap in each namespace. */
  readonly name: string;
  readonly queue: WriteQueueOptions;
}

export const ROOT_CONFIG_MAPS_DEFAULTS: RootConfigMapsOptions = {
  name: 'culvert-ca-root-cert',
  // Thousands of namespaces within a minute.
  queue: { ...WRITE_QUEUE_DEFAULTS, perSecond: 100, burst: 100 },
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
  /** By namespace: each waits for itself, so that one tenant's obstinate ConfigMap holds up nobody else. */
  readonly #queue: WriteQueue;

  constructor(options: RootConfigMapsOptions, deps: RootConfigMapsDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#queue = new WriteQueue(options.queue, {
      write: (namespace) => this.#write(namespace),
      log: deps.log,
    });
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
      deps.leadership.subscribe({
        onLead: () => this.#lookEverywhere(),
        onFollow: () => this.#queue.clear(),
      }),
    ];
  }

  start(): void {
    void this.#source.start();
  }

  stop(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.#queue.clear();
    this.#source.stop();
  }

  #changed({ upserted, removed }: SourceBatch<Item>): void {
    for (const item of upserted.values()) this.#touch(item.kind === 'Namespace' ? item.name : item.namespace);
    for (const key of removed) {
      const [kind, namespace] = key.split('/') as [string, string];
      if (kind === 'ConfigMap') this.#touch(namespace);
    }
  }

  #lookEverywhere(): void {
    for (const item of this.#source.values()) if (item.kind === 'Namespace') this.#touch(item.name);
  }

  /** Who comes to lead looks everywhere. */
  #touch(namespace: string): void {
    if (this.#deps.leadership.isLeader) this.#queue.add(namespace);
  }

  #isWanting(namespace: string): boolean {
    const found = this.#source.get(`Namespace/${namespace}`);
    if (found?.kind !== 'Namespace' || found.isEnding || !this.#deps.leadership.isLeader) return false;
    const map = this.#source.get(`ConfigMap/${namespace}/${this.#options.name}`);
    return map?.kind !== 'ConfigMap' || map.bundle !== bundleOf(this.#deps.authority);
  }

  async #write(namespace: string): Promise<boolean> {
    if (!this.#isWanting(namespace)) return false;
    const { name } = this.#options;
    await this.#deps.client.request({
      method: 'PATCH',
      path: `/api/v1/namespaces/${namespace}/configmaps/${name}`,
      query: { fieldManager: OWNER, force: 'true' },
      contentType: 'application/apply-patch+yaml',
      body: {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name, labels: { 'app.kubernetes.io/managed-by': 'culvert' } },
        data: { [KEY]: bundleOf(this.#deps.authority) },
      },
      signal: AbortSignal.timeout(WRITE_TIMEOUT_MS),
    });
    return true;
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
