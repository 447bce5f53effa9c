/**
 * Annotation `ambient.istio.io/redirection: enabled`: by it the control plane knows that a pod's HBONE port is served. Decides when it is
 * written and removed; compares what is with what should be, so that a lost write, or somebody else's, is mended.
 */
import { messageOf } from '../../mesh/common/errors.js';
import { BACKOFF_DEFAULTS, Backoff, statusOf } from '../../mesh/kube/index.js';
import type { Log } from '../../mesh/log/index.js';

/** A pod as the API server has it. */
export interface MarkedPod {
  readonly uid: string;
  /** Where it is not `uid`: a static pod's. */
  readonly objectUid: string;
  readonly namespace: string;
  readonly name: string;
  /** Of the annotation; undefined: it has none. */
  readonly mark: string | undefined;
}

export interface RedirectionMarksDeps {
  /** Sets the annotation of this very pod (by uid), null removes it. Rejects with a KubeError. */
  readonly write: (pod: MarkedPod, mark: 'enabled' | null) => Promise<void>;
  readonly log: Log;
  /** [0, 1) */
  readonly random: () => number;
}

/** 30 pods that start at once are written in a few turns; 1,000 agents that restart are no flood. */
const MAX_WRITES = 8;

export class RedirectionMarks {
  readonly #deps: RedirectionMarksDeps;
  #pods: ReadonlyMap<string, MarkedPod>;
  /** By uid; of others nothing is known yet, and what is written there (by the agent before us) stays. */
  readonly #captured: Map<string, boolean>;
  readonly #writing: Set<string>;
  readonly #retries: Map<string, { readonly backoff: Backoff; timer: NodeJS.Timeout | null }>;
  #isStopped: boolean;
  /** Called when no pod is marked any more; null: nobody takes them back. */
  #onBare: (() => void) | null;

  constructor(deps: RedirectionMarksDeps) {
    this.#deps = deps;
    this.#pods = new Map();
    this.#captured = new Map();
    this.#writing = new Set();
    this.#retries = new Map();
    this.#isStopped = false;
    this.#onBare = null;
  }

  /** All pods of this node, as the API server has them now. */
  setPods(pods: readonly MarkedPod[]): void {
    this.#pods = new Map(pods.map((pod) => [pod.uid, pod]));
    for (const uid of this.#captured.keys()) if (!this.#pods.has(uid)) this.#forget(uid);
    if (this.#onBare !== null) for (const uid of this.#pods.keys()) this.#captured.set(uid, false);
    this.#writeWhatDiffers();
  }

  /** Whether the pod's traffic is truly in our hands. */
  setCaptured(uid: string, isCaptured: boolean): void {
    this.#captured.set(uid, isCaptured && this.#onBare === null);
    this.#writeWhatDiffers();
  }

  /** From now on no pod is to be marked, whoever has captured it. Resolves when none is, however long the API server is away. */
  takeBack(): Promise<void> {
    return new Promise((resolve) => {
      this.#onBare = resolve;
      for (const uid of this.#pods.keys()) this.#captured.set(uid, false);
      this.#writeWhatDiffers();
    });
  }

  stop(): void {
    this.#isStopped = true;
    for (const uid of [...this.#retries.keys()]) this.#forget(uid);
  }

  #writeWhatDiffers(): void {
    for (const [uid, isCaptured] of this.#captured) {
      if (this.#isStopped || this.#writing.size >= MAX_WRITES) return;
      const pod = this.#pods.get(uid);
      const mark = isCaptured ? 'enabled' : undefined;
      const isWaiting = this.#writing.has(uid) || this.#retries.get(uid)?.timer != null;
      if (pod !== undefined && pod.mark !== mark && !isWaiting) void this.#write(pod, mark);
    }
    if ([...this.#pods.values()].every(({ mark }) => mark === undefined)) this.#onBare?.();
  }

  async #write(pod: MarkedPod, mark: 'enabled' | undefined): Promise<void> {
    const { uid } = pod;
    this.#writing.add(uid);
    try {
      await this.#deps.write(pod, mark ?? null);
      this.#retries.delete(uid);
      // As it is, until the watch says so itself.
      if (this.#pods.get(uid) === pod) this.#pods = new Map([...this.#pods, [uid, { ...pod, mark }]]);
    } catch (error) {
      this.#failed(pod, error);
    }
    this.#writing.delete(uid);
    this.#writeWhatDiffers();
  }

  /** 404, 422: the pod is gone, or another one of that name is there; its end comes by the watch. */
  #failed({ uid, namespace, name }: MarkedPod, error: unknown): void {
    if (this.#isStopped || !this.#captured.has(uid)) return;
    const isGone = [404, 422].includes(statusOf(error));
    const retry = this.#retries.get(uid) ?? {
      backoff: new Backoff(BACKOFF_DEFAULTS, this.#deps),
      timer: null,
    };
    this.#retries.set(uid, retry);
    const what = { uid, namespace, pod: name, reason: messageOf(error) };
    if (!isGone) this.#deps.log.warn(what, 'redirection annotation not written; it is tried again');
    retry.timer = setTimeout(() => {
      retry.timer = null;
      this.#writeWhatDiffers();
    }, retry.backoff.next());
  }

  #forget(uid: string): void {
    const timer = this.#retries.get(uid)?.timer;
    if (timer != null) clearTimeout(timer);
    this.#retries.delete(uid);
    this.#captured.delete(uid);
  }
}
