/** How the pods of a node are watched, and written to. Loaded by KubernetesPodSource where it is wanted: workers load this room, too, and need none of it. */
import {
  API_CLIENT_DEFAULTS,
  ApiClient,
  KUBERNETES_SOURCE_DEFAULTS,
  KubernetesSource,
  openAccess,
  watchedKindsOf,
} from '../../mesh/kube/index.js';
import type { Log } from '../../mesh/log/index.js';
import { decoderOf, REDIRECTION_ANNOTATION } from '../../mesh/manifests/index.js';
import { localPods, type Manifest, type PodView, podKinds } from './manifest.js';
import { type MarkedPod, RedirectionMarks } from './redirection-marks.js';
import type { LocalPod } from './types.js';

export interface KubernetesPodsOptions {
  /** Empty: as the pod that we are in. */
  readonly kubeconfig: string;
  readonly nodeName: string;
  /** Pods of these are plain whatever their labels say. Default: kube-system. */
  readonly excludedNamespaces?: readonly string[];
}

/** The node's pods and all namespaces, as the API server has them. */
export class KubernetesPods {
  readonly source: KubernetesSource<Manifest>;
  readonly marks: RedirectionMarks;
  readonly #options: KubernetesPodsOptions;
  readonly #client: ApiClient;

  /** `onChange`: pods may be others. Throws KUBE_ACCESS. */
  constructor(
    options: KubernetesPodsOptions,
    { onChange, log }: { readonly onChange: () => void; readonly log: Log },
  ) {
    this.#options = options;
    const { kubeconfig, nodeName } = options;
    const access = openAccess({ kubeconfig });
    this.#client = new ApiClient({ ...API_CLIENT_DEFAULTS, userAgent: 'culvert-agent' }, { access });
    const decoders = podKinds(nodeName);
    const kinds = watchedKindsOf(decoders.keys()).map((watched) => ({
      ...watched,
      // As our node, which may see its own pods and no others (Kubernetes 1.36: constrained impersonation of the associated node).
      ...(watched.kind === 'Pod' && {
        fieldSelector: `spec.nodeName=${nodeName}`,
        asUser: `system:node:${nodeName}`,
      }),
    }));
    this.source = new KubernetesSource<Manifest>(
      { ...KUBERNETES_SOURCE_DEFAULTS, kinds },
      { client: this.#client, decode: decoderOf(decoders), onBatch: onChange, log },
    );
    this.marks = new RedirectionMarks({
      write: (pod, mark) => this.#write(pod, mark),
      log,
      random: Math.random,
    });
    log.info({ cluster: access.origin, node: nodeName }, 'pods come from the API server');
  }

  pods(): readonly LocalPod[] {
    return localPods(viewOf(this.source), this.#options.excludedNamespaces);
  }

  /** As the API server has them, for `marks`. */
  markedPods(): readonly MarkedPod[] {
    const marked: MarkedPod[] = [];
    for (const pod of this.source.values()) {
      if (pod.kind !== 'Pod') continue;
      const { uid, objectUid, namespace, name, annotations } = pod;
      marked.push({ uid, objectUid, namespace, name, mark: annotations[REDIRECTION_ANNOTATION] });
    }
    return marked;
  }

  stop(): void {
    this.marks.stop();
    this.source.stop();
    this.#client.close();
  }

  /** By raw PATCH of the status: all that our role has to allow. With another pod's uid it is refused. */
  async #write({ objectUid: uid, namespace, name }: MarkedPod, mark: 'enabled' | null): Promise<void> {
    await this.#client.request({
      method: 'PATCH',
      path: `/api/v1/namespaces/${namespace}/pods/${name}/status`,
      contentType: 'application/merge-patch+json',
      body: { metadata: { uid, annotations: { [REDIRECTION_ANNOTATION]: mark } } },
    });
  }
}

/** Each watch is its own: a pod may be seen before its namespace. What its namespace says is then not known yet. */
function viewOf(source: KubernetesSource<Manifest>): PodView {
  return {
    values: () => source.values(),
    get: (key) => source.get(key),
    isUnsettled: (key) => source.get(key) === undefined,
    hasAddresses: false,
  };
}
