/** The pod source on Kubernetes: this node's pods, and all namespaces, as the API server has them; as it had them last, while an agent that starts cannot reach it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../../mesh/log/index.js';
import type { ManifestProblem } from '../../mesh/manifests/index.js';
import type { KubernetesPods, KubernetesPodsOptions } from './kubernetes-pods.js';
import type { PodSnapshot } from './pod-snapshot.js';
import type { LocalPod, PodSource } from './types.js';

export type KubernetesPodSourceOptions = KubernetesPodsOptions;

/** All pods are to be known within a second of the agent's start; an API server that is there has answered by now. */
const SNAPSHOT_AFTER_MS = 250;

export class KubernetesPodSource implements PodSource {
  readonly #options: KubernetesPodSourceOptions;
  readonly #log: Log;
  readonly #snapshot: PodSnapshot | null;
  #opening: Promise<KubernetesPods> | null;
  #opened: KubernetesPods | null;
  #publish: () => void;
  #isStopped: boolean;
  #isSaving: boolean;

  /** `snapshot`: null: without the API server nothing is known at start. */
  constructor(
    options: KubernetesPodSourceOptions,
    deps: { readonly log: Log; readonly snapshot: PodSnapshot | null },
  ) {
    this.#options = options;
    this.#log = deps.log;
    this.#snapshot = deps.snapshot;
    this.#opening = null;
    this.#opened = null;
    this.#publish = () => {};
    this.#isStopped = false;
    this.#isSaving = true;
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
    const following = this.#follow(onPods);
    const isLate = await Promise.race([following.then(() => false), sleep(SNAPSHOT_AFTER_MS, true)]);
    const saved = isLate ? (this.#snapshot?.load() ?? null) : null;
    if (saved === null || this.pending.length === 0) return await following;
    this.#log.warn(
      { pods: saved.length, pending: this.pending },
      'the API server is away: pods are as saved',
    );
    following.catch((error: unknown) => this.#log.error({ err: error }, 'pods stay as saved'));
    onPods(saved);
  }

  noteCaptured(uid: string, isCaptured: boolean): void {
    this.#opened?.marks.setCaptured(uid, isCaptured);
  }

  stopNoting(): void {
    this.#opened?.marks.stop();
    // What the next agent saves is not to be overwritten by what we see late.
    this.#snapshot?.flush();
    this.#isSaving = false;
  }

  async release(): Promise<void> {
    this.#isSaving = false;
    this.#snapshot?.remove();
    // Marks of an agent before us, too: none is known until the API server has told all pods.
    const opened = await this.#open();
    this.#publish = () => opened.marks.setPods(opened.markedPods());
    this.#publish();
    await opened.marks.takeBack();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#snapshot?.flush();
    this.#opened?.stop();
  }

  async #follow(onPods: (pods: readonly LocalPod[]) => void): Promise<void> {
    const opened = await this.#open();
    let lastPods = '';
    this.#publish = () => {
      const pods = opened.pods();
      const text = JSON.stringify(pods);
      if (text !== lastPods) {
        onPods(pods);
        if (this.#isSaving) this.#snapshot?.save(pods);
      }
      lastPods = text;
      opened.marks.setPods(opened.markedPods());
    };
    this.#publish();
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
