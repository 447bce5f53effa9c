/** The pod source on Kubernetes: this node's pods, and all namespaces, as the API server has them. */
import type { ApiClient, KubernetesSource } from '../../mesh/kube/index.js';
import type { Log } from '../../mesh/log/index.js';
import type { ManifestProblem } from '../../mesh/manifests/index.js';
import type { Manifest, PodView } from './manifest.js';
import type { MarkedPod, RedirectionMarks } from './redirection-marks.js';
import type { LocalPod, PodSource } from './types.js';

export interface KubernetesPodSourceOptions {
  /** Empty: as the pod that we are in. */
  readonly kubeconfig: string;
  readonly nodeName: string;
  /** Pods of these are plain whatever their labels say. Default: kube-system. */
  readonly excludedNamespaces?: readonly string[];
}

/** What is loaded at `open`. As in FilesPodSource: workers load this room, too, and need none of it. */
interface Opened {
  readonly source: KubernetesSource<Manifest>;
  readonly client: ApiClient;
  readonly marks: RedirectionMarks;
  /** The whole state is there. */
  readonly ready: Promise<void>;
}

export class KubernetesPodSource implements PodSource {
  readonly #options: KubernetesPodSourceOptions;
  readonly #log: Log;
  #opening: Promise<Opened> | null;
  #opened: Opened | null;
  #isReady: boolean;
  #publish: () => void;
  #isStopped: boolean;

  constructor(options: KubernetesPodSourceOptions, deps: { readonly log: Log }) {
    this.#options = options;
    this.#log = deps.log;
    this.#opening = null;
    this.#opened = null;
    this.#isReady = false;
    this.#publish = () => {};
    this.#isStopped = false;
  }

  get pending(): readonly string[] {
    if (this.#isReady) return [];
    return this.#opened?.source.pending ?? ['the API server'];
  }

  /** Everything wrong right now: objects, and watches that are interrupted. */
  get problems(): readonly ManifestProblem[] {
    return this.#opened?.source.problems ?? [];
  }

  /** Since the API server was last heard of pods or namespaces, milliseconds. */
  get ageMs(): number {
    return this.#opened?.source.ageMs ?? 0;
  }

  /** Resolves when the API server has told everything; never, if it is stopped before. Throws KUBE_ACCESS. */
  async open(): Promise<void> {
    this.#opening ??= this.#open();
    await (await this.#opening).ready;
    this.#isReady = true;
  }

  async start(onPods: (pods: readonly LocalPod[]) => void): Promise<void> {
    const { localPods } = await import('./manifest.js');
    await this.open();
    const { source, marks } = this.#opened!;
    let lastPods = '';
    this.#publish = () => {
      const pods = localPods(viewOf(source), this.#options.excludedNamespaces);
      const text = JSON.stringify(pods);
      if (text !== lastPods) onPods(pods);
      lastPods = text;
      marks.setPods(markedPods(source));
    };
    this.#publish();
  }

  noteCaptured(uid: string, isCaptured: boolean): void {
    this.#opened?.marks.setCaptured(uid, isCaptured);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#opened === null) return;
    this.#opened.marks.stop();
    this.#opened.source.stop();
    this.#opened.client.close();
  }

  async #open(): Promise<Opened> {
    const [{ podKinds }, { decoderOf }, kube, { RedirectionMarks, REDIRECTION_ANNOTATION }] =
      await Promise.all([
        import('./manifest.js'),
        import('../../mesh/manifests/index.js'),
        import('../../mesh/kube/index.js'),
        import('./redirection-marks.js'),
      ]);
    const { kubeconfig, nodeName } = this.#options;
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
    const source = new kube.KubernetesSource<Manifest>(
      { ...kube.KUBERNETES_SOURCE_DEFAULTS, kinds: watched },
      { client, decode: decoderOf(kinds), onBatch: () => this.#publish(), log: this.#log },
    );
    const write = async ({ objectUid: uid, namespace, name }: MarkedPod, mark: string | null) => {
      await client.request({
        method: 'PATCH',
        path: `/api/v1/namespaces/${namespace}/pods/${name}/status`,
        contentType: 'application/merge-patch+json',
        // With another pod's uid it is refused.
        body: { metadata: { uid, annotations: { [REDIRECTION_ANNOTATION]: mark } } },
      });
    };
    const marks = new RedirectionMarks({ write, log: this.#log, random: Math.random });
    this.#log.info({ cluster: access.origin, node: nodeName }, 'pods come from the API server');
    const ready = this.#isStopped ? new Promise<void>(() => {}) : source.start();
    this.#opened = { source, client, marks, ready };
    return this.#opened;
  }
}

function markedPods(source: KubernetesSource<Manifest>): MarkedPod[] {
  const pods: MarkedPod[] = [];
  for (const pod of source.values())
    if (pod.kind === 'Pod')
      pods.push({
        uid: pod.uid,
        objectUid: pod.objectUid,
        namespace: pod.namespace,
        name: pod.name,
        mark: pod.annotations['ambient.istio.io/redirection'],
      });
  return pods;
}

/** Each watch is its own: a pod may be seen before its namespace. What its namespace says is then not known yet. */
function viewOf(source: KubernetesSource<Manifest>): PodView {
  return {
    values: () => source.values(),
    get: (key) => source.get(key),
    isUnsettled: (key) => source.get(key) === undefined,
  };
}
