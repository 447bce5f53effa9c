/** The pod source on Kubernetes: this node's pods, and all namespaces, as the API server has them. */
import type { KubernetesSource } from '../../mesh/kube/index.js';
import type { Log } from '../../mesh/log/index.js';
import type { ManifestProblem } from '../../mesh/manifests/index.js';
import type { Manifest, PodView } from './manifest.js';
import type { LocalPod, PodSource } from './types.js';

export interface KubernetesPodSourceOptions {
  /** Empty: as the pod that we are in. */
  readonly kubeconfig: string;
  readonly nodeName: string;
  /** Pods of these are plain whatever their labels say. Default: kube-system. */
  readonly excludedNamespaces?: readonly string[];
}

export class KubernetesPodSource implements PodSource {
  readonly #options: KubernetesPodSourceOptions;
  readonly #log: Log;
  #source: KubernetesSource<Manifest> | null;
  #isStopped: boolean;

  constructor(options: KubernetesPodSourceOptions, deps: { readonly log: Log }) {
    this.#options = options;
    this.#log = deps.log;
    this.#source = null;
    this.#isStopped = false;
  }

  get pending(): readonly string[] {
    return this.#source?.pending ?? [];
  }

  get problems(): readonly ManifestProblem[] {
    return this.#source?.problems ?? [];
  }

  /** Since the API server was last heard of pods and namespaces, milliseconds. */
  get ageMs(): number {
    return this.#source?.ageMs ?? 0;
  }

  /** Resolves after the first `onPods`: not before the API server has answered; never, if it is stopped before. Throws KUBE_ACCESS. */
  async start(onPods: (pods: readonly LocalPod[]) => void): Promise<void> {
    // As in FilesPodSource: workers load this room, too, and need none of this.
    const [{ localPods, podKinds }, { decoderOf }, kube] = await Promise.all([
      import('./manifest.js'),
      import('../../mesh/manifests/index.js'),
      import('../../mesh/kube/index.js'),
    ]);
    if (this.#isStopped) return;
    const { kubeconfig, nodeName, excludedNamespaces } = this.#options;
    const access = kube.openAccess({ kubeconfig });
    const client = new kube.ApiClient(
      { ...kube.API_CLIENT_DEFAULTS, userAgent: 'culvert-agent' },
      { access },
    );
    const kinds = podKinds(nodeName);
    const watched = kube.watchedKindsOf(kinds.keys()).map((one) => ({
      ...one,
      ...(one.kind === 'Pod' && { fieldSelector: `spec.nodeName=${nodeName}` }),
    }));
    let lastPods = '';
    const publish = () => {
      const pods = localPods(viewOf(source), excludedNamespaces);
      const text = JSON.stringify(pods);
      if (text !== lastPods) onPods(pods);
      lastPods = text;
    };
    const source = new kube.KubernetesSource<Manifest>(
      { ...kube.KUBERNETES_SOURCE_DEFAULTS, kinds: watched },
      { client, decode: decoderOf(kinds), onBatch: publish, log: this.#log },
    );
    this.#source = source;
    this.#log.info({ cluster: access.origin, node: nodeName }, 'pods come from the API server');
    await source.start();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#source?.stop();
  }
}

/** Each watch is its own: a pod may be seen before its namespace. What its namespace says is then not known yet. */
function viewOf(source: KubernetesSource<Manifest>): PodView {
  return {
    values: () => source.values(),
    get: (key) => source.get(key),
    isUnsettled: (key) => source.get(key) === undefined,
  };
}
