/** The pod source on Kubernetes: this node's pods, and all namespaces, as the API server has them. */
import type { Log } from '../../mesh/log/index.js';
import type { ManifestProblem } from '../../mesh/manifests/index.js';
import type { KubernetesPods, KubernetesPodsOptions } from './kubernetes-pods.js';
import type { LocalPod, PodSource } from './types.js';

export type KubernetesPodSourceOptions = KubernetesPodsOptions;

export class KubernetesPodSource implements PodSource {
  readonly #options: KubernetesPodSourceOptions;
  readonly #log: Log;
  #opening: Promise<KubernetesPods> | null;
  #opened: KubernetesPods | null;
  #publish: () => void;
  #isStopped: boolean;

  constructor(options: KubernetesPodSourceOptions, deps: { readonly log: Log }) {
    this.#options = options;
    this.#log = deps.log;
    this.#opening = null;
    this.#opened = null;
    this.#publish = () => {};
    this.#isStopped = false;
  }

  get pending(): readonly string[] {
    return this.#opened?.source.pending ?? ['the API server'];
  }

  /** Everything wrong right now: objects, and watches that are interrupted. */
  get problems(): readonly ManifestProblem[] {
    return this.#opened?.source.problems ?? [];
  }

  get ages(): ReadonlyMap<string, number> {
    return this.#opened?.source.ages ?? new Map();
  }

  /** Resolves when the API server has told everything; never, if it is stopped before. Throws KUBE_ACCESS. */
  async open(): Promise<void> {
    await this.#open();
  }

  async start(onPods: (pods: readonly LocalPod[]) => void): Promise<void> {
    const opened = await this.#open();
    let lastPods = '';
    this.#publish = () => {
      const pods = opened.pods();
      const text = JSON.stringify(pods);
      if (text !== lastPods) onPods(pods);
      lastPods = text;
      opened.marks.setPods(opened.markedPods());
    };
    this.#publish();
  }

  noteCaptured(uid: string, isCaptured: boolean): void {
    this.#opened?.marks.setCaptured(uid, isCaptured);
  }

  stopNoting(): void {
    this.#opened?.marks.stop();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#opened?.stop();
  }

  #open(): Promise<KubernetesPods> {
    this.#opening ??= this.#begin();
    return this.#opening;
  }

  async #begin(): Promise<KubernetesPods> {
    const { KubernetesPods } = await import('./kubernetes-pods.js');
    const opened = new KubernetesPods(this.#options, { onChange: () => this.#publish(), log: this.#log });
    this.#opened = opened;
    await (this.#isStopped ? new Promise<never>(() => {}) : opened.source.start());
    return opened;
  }
}
