/** How many questions wait for resolvers: each pod has a share that no other can use up, and all together have an end. */
export class InFlight {
  readonly #maxPerPod: number;
  readonly #max: number;
  readonly #byPod = new Map<string, number>();
  #total = 0;

  constructor(options: { readonly maxPerPod: number; readonly max: number }) {
    this.#maxPerPod = options.maxPerPod;
    this.#max = options.max;
  }

  get total(): number {
    return this.#total;
  }

  of(pod: string): number {
    return this.#byPod.get(pod) ?? 0;
  }

  /** False: no room, for this pod or at all. */
  take(pod: string): boolean {
    const own = this.#byPod.get(pod) ?? 0;
    if (own >= this.#maxPerPod || this.#total >= this.#max) return false;
    this.#byPod.set(pod, own + 1);
    this.#total++;
    return true;
  }

  giveBack(pod: string): void {
    const own = this.#byPod.get(pod) ?? 0;
    if (own <= 1) this.#byPod.delete(pod);
    else this.#byPod.set(pod, own - 1);
    this.#total--;
  }
}
