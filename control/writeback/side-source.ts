import { type ApiClient, KUBERNETES_SOURCE_DEFAULTS, KubernetesSource } from '../../mesh/kube/index.js';
import type { Log } from '../../mesh/log/index.js';
import { decoderOf, type KindDecoder, keyOf } from '../../mesh/manifests/index.js';
import type { ObjectKey } from '../model/index.js';
import type { Facts } from './facts.js';
import { decodeNetworkPolicy, type NetworkPolicy } from './network-policy.js';

export interface SideSourceOptions {
  /** The controller's own namespace. */
  readonly namespace: string;
}

export interface SideSourceDeps {
  readonly client: ApiClient;
  readonly facts: Facts;
  /** The marker came or went. */
  readonly onMarker: () => void;
  readonly log: Log;
}

/** ConfigMap in the controller's namespace: the mesh is being removed. */
export const UNINSTALL_MARKER = 'culvert-uninstall';

interface Marker {
  readonly kind: 'ConfigMap';
}

const DECODERS = new Map<string, KindDecoder<NetworkPolicy | Marker>>([
  [
    'networking.k8s.io/v1 NetworkPolicy',
    { namespaced: true, nameForm: 'subdomain', decode: decodeNetworkPolicy },
  ],
  ['v1 ConfigMap', { namespaced: true, nameForm: 'subdomain', decode: () => ({ kind: 'ConfigMap' }) }],
]);

/** What writing back needs to know besides the mesh's own objects. That it cannot be watched is no trouble of the mesh. */
export class SideSource {
  readonly #source: KubernetesSource<NetworkPolicy | Marker>;
  readonly #markerKey: ObjectKey;
  #policies: ReadonlyMap<ObjectKey, NetworkPolicy>;
  #isUninstalling: boolean;

  constructor({ namespace }: SideSourceOptions, { client, facts, onMarker, log }: SideSourceDeps) {
    this.#markerKey = keyOf('ConfigMap', namespace, UNINSTALL_MARKER);
    this.#policies = new Map();
    this.#isUninstalling = false;
    const kinds = [
      { kind: 'NetworkPolicy', apiVersions: ['networking.k8s.io/v1'] },
      {
        kind: 'ConfigMap',
        apiVersions: ['v1'],
        namespace,
        fieldSelector: `metadata.name=${UNINSTALL_MARKER}`,
      },
    ];
    this.#source = new KubernetesSource<NetworkPolicy | Marker>(
      { ...KUBERNETES_SOURCE_DEFAULTS, kinds },
      {
        client,
        decode: decoderOf(DECODERS),
        observe: (key, raw) => {
          facts.observe(key, raw);
          if (key === this.#markerKey && (raw !== null) !== this.#isUninstalling) {
            this.#isUninstalling = raw !== null;
            onMarker();
          }
        },
        onBatch: ({ upserted, removed }) => this.#apply(upserted, removed),
        log,
      },
    );
  }

  get networkPolicies(): Iterable<NetworkPolicy> {
    return this.#policies.values();
  }

  get isUninstalling(): boolean {
    return this.#isUninstalling;
  }

  start(): void {
    void this.#source.start();
  }

  stop(): void {
    this.#source.stop();
  }

  #apply(upserted: ReadonlyMap<ObjectKey, NetworkPolicy | Marker>, removed: readonly ObjectKey[]): void {
    const policies = new Map(this.#policies);
    for (const key of removed) policies.delete(key);
    for (const [key, object] of upserted) if (object.kind === 'NetworkPolicy') policies.set(key, object);
    this.#policies = policies;
  }
}
