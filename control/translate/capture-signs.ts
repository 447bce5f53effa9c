import { isEnrolled, REDIRECTION_ANNOTATION } from '../../mesh/manifests/index.js';
import type { Model, ObjectKey, Pod } from '../model/index.js';

/** `awaited`: its traffic is to be captured, and is not yet: whoever calls it must fail, never speak plainly. */
export type CaptureState = 'plain' | 'awaited' | 'captured';

export interface CaptureSignsOptions {
  /** What says that a pod is captured: its label (agents that refuse its traffic until it is), or the annotation of its agent (Kubernetes). */
  readonly captureSign: 'label' | 'annotation';
}

/**
 * What is announced of enrolled pods before their agent has said that they are captured. One that ran before it was enrolled stays plain until
 * then: its traffic never stops. Any other is awaited, also one of which nothing is known (this controller has just begun).
 */
export class CaptureSigns {
  readonly #byAnnotation: boolean;
  /** Pods that ran while they were not enrolled, by key; their uid: another one of that name has not. */
  readonly #ranPlain: Map<ObjectKey, string>;

  constructor(options: CaptureSignsOptions) {
    this.#byAnnotation = options.captureSign === 'annotation';
    this.#ranPlain = new Map();
  }

  /** Asked whenever the pod, or its namespace, has changed. */
  stateOf(key: ObjectKey, pod: Pod, model: Model): CaptureState {
    const enrolled = isEnrolled(pod, model.namespace(pod.namespace));
    if (!this.#byAnnotation) return enrolled ? 'captured' : 'plain';
    if (!enrolled) {
      if (pod.phase !== 'Pending') this.#ranPlain.set(key, pod.uid);
      return 'plain';
    }
    if (pod.annotations[REDIRECTION_ANNOTATION] === 'enabled') {
      this.#ranPlain.delete(key);
      return 'captured';
    }
    return this.#ranPlain.get(key) === pod.uid ? 'plain' : 'awaited';
  }

  forget(key: ObjectKey): void {
    this.#ranPlain.delete(key);
  }
}
