import type { LabNode } from '../lab/index.js';

/** A time in which connections that touch something may fail, and why. Wall clock, ms. */
export interface Disturbance {
  readonly what: string;
  readonly fromMs: number;
  /** Infinity while it goes on. */
  toMs: number;
  /** A node's name, or a pod's `node/pod`. */
  readonly touches: string;
}

/** What was done to the mesh, and which failures that explains. */
export class Disturbances {
  readonly #all: Disturbance[] = [];

  begin(what: string, touches: LabNode | string): Disturbance {
    const disturbance = {
      what,
      fromMs: Date.now(),
      toMs: Number.POSITIVE_INFINITY,
      touches: typeof touches === 'string' ? touches : touches.name,
    };
    this.#all.push(disturbance);
    return disturbance;
  }

  /** `settleMs`: how long it may still show after it is over. */
  end(disturbance: Disturbance, settleMs: number): void {
    disturbance.toMs = Date.now() + settleMs;
  }

  /** What explains a failure between two pods (`node/pod`) in that time; null: nothing. */
  explain(places: readonly string[], fromMs: number, toMs: number): Disturbance | null {
    const touched = new Set(places.flatMap((place) => [place, place.slice(0, place.indexOf('/'))]));
    return (
      this.#all.find((one) => touched.has(one.touches) && one.fromMs <= toMs && one.toMs >= fromMs) ?? null
    );
  }
}
