import type { CapturedPod, CaptureHandles } from './capture/index.js';
import type { DnsProxy } from './dns/index.js';
import type { Workers } from './workers.js';

export interface ArrivalsDeps {
  readonly workers: Pick<Workers, 'addPods'>;
  readonly dns: Pick<DnsProxy, 'serve'>;
}

/**
 * Pods whose sockets are open and are nobody's yet. Their connections and questions wait in these, never anywhere else, until all pods that
 * start at the same moment are captured: then they are served, together.
 */
export class Arrivals {
  readonly #deps: ArrivalsDeps;
  readonly #pods = new Map<string, CapturedPod>();
  #queued: NodeJS.Immediate | null = null;
  #isClosed = false;

  constructor(_options: Record<string, never>, deps: ArrivalsDeps) {
    this.#deps = deps;
  }

  add(pod: CapturedPod, handles: CaptureHandles): void {
    if (this.#isClosed) return;
    this.#pods.set(pod.pod.uid, pod);
    this.#queued ??= setImmediate(() => this.#serve(handles));
  }

  /** The pod's descriptors are about to be closed. */
  remove(uid: string): void {
    this.#pods.delete(uid);
  }

  /** Nobody is served any more. */
  close(): void {
    this.#isClosed = true;
    if (this.#queued !== null) clearImmediate(this.#queued);
    this.#pods.clear();
  }

  #serve(handles: CaptureHandles): void {
    this.#queued = null;
    const pods = [...this.#pods.values()];
    this.#pods.clear();
    this.#deps.workers.addPods(pods, handles);
    for (const { pod } of pods) this.#deps.dns.serve(pod.uid);
  }
}
