import { setTimeout as sleep } from 'node:timers/promises';
import type { ScaleCluster } from './cluster.js';
import { type PodPlan, type Population, podName, podPlan, ROLLING, type ScaleOptions } from './population.js';

const GRACE_MS = 1000;

/** Replaces pods one after another at an even rate: a new one comes, runs, is captured; an old one ends. */
export class Roller {
  readonly #options: ScaleOptions;
  readonly #cluster: ScaleCluster;
  readonly #pods: PodPlan[];
  #nextIndex: number;

  constructor(options: ScaleOptions, population: Population, cluster: ScaleCluster) {
    this.#options = options;
    this.#cluster = cluster;
    this.#pods = population.pods.filter(({ namespace }) => namespace === ROLLING);
    this.#nextIndex = population.pods.length;
  }

  /** Resolves when all has been written; gives how many were replaced. */
  async run(): Promise<number> {
    const { rollPerSecond, rollSeconds } = this.#options;
    const total = rollPerSecond * rollSeconds;
    const startMs = performance.now();
    const running: Promise<void>[] = [];
    for (let turn = 0; turn < total; turn++) {
      const waitMs = startMs + (turn * 1000) / rollPerSecond - performance.now();
      if (waitMs > 0) await sleep(waitMs);
      running.push(this.#replace(turn));
    }
    await Promise.all(running);
    return total;
  }

  async #replace(turn: number): Promise<void> {
    const slot = turn % this.#pods.length;
    const old = this.#pods[slot]!;
    const generation = 1 + Math.floor(turn / this.#pods.length);
    const name = podName(slot, generation);
    const next = podPlan(this.#options, this.#nextIndex++, { namespace: ROLLING, name, meshed: true });
    this.#pods[slot] = next;
    await this.#cluster.startPod(next);
    await this.#cluster.endPod(old, GRACE_MS);
  }
}
