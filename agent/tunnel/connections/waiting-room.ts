import type { Reactor, Timer } from '../../../mesh/io/index.js';
import type { Log } from '../../../mesh/log/index.js';

/** Something that cannot go on until the store or a certificate has come. */
export interface Waiting {
  readonly podUid: string;
  /** True: it went on (or is over), and waits no more. */
  tryStart(): boolean;
  giveUp(): void;
}

export interface WaitingRoomOptions {
  /** hbone-and-wds.md 6.1: connections of a pod wait this long for what the controller has to say of it. */
  readonly maxWaitMs: number;
  /** More are given up at once. */
  readonly maxWaiting: number;
}

/** A store that has come may set 10,000 going. */
const maxTurnMs = 4;

/** Connections that came before the configuration that they need. First come, first served. */
export class WaitingRoom {
  readonly #options: WaitingRoomOptions;
  readonly #reactor: Reactor;
  readonly #log: Pick<Log, 'error'>;
  readonly #waiting = new Map<Waiting, Timer>();
  /** A round is under way. */
  #isPoking = false;
  /** Something changed since it began. */
  #hasChanged = false;

  constructor(
    options: WaitingRoomOptions,
    deps: { readonly reactor: Reactor; readonly log: Pick<Log, 'error'> },
  ) {
    this.#options = options;
    this.#reactor = deps.reactor;
    this.#log = deps.log;
  }

  get size(): number {
    return this.#waiting.size;
  }

  add(waiting: Waiting): void {
    if (this.#waiting.size >= this.#options.maxWaiting) {
      waiting.giveUp();
      return;
    }
    const timer = this.#reactor.setTimer(this.#options.maxWaitMs, () => {
      this.#waiting.delete(waiting);
      waiting.giveUp();
    });
    this.#waiting.set(waiting, timer);
  }

  remove(waiting: Waiting): void {
    this.#waiting.get(waiting)?.cancel();
    this.#waiting.delete(waiting);
  }

  /** The pod has left: nothing that it needs will come. */
  giveUpPod(podUid: string): void {
    for (const waiting of [...this.#waiting.keys()]) {
      if (waiting.podUid !== podUid) continue;
      this.remove(waiting);
      waiting.giveUp();
    }
  }

  /** Something changed: whoever can go on does, at most 4 ms a turn. */
  poke(): void {
    this.#hasChanged = true;
    if (this.#isPoking) return;
    this.#isPoking = true;
    this.#round();
  }

  #round(): void {
    this.#hasChanged = false;
    this.#goOn([...this.#waiting.keys()].values());
  }

  #goOn(rest: Iterator<Waiting>): void {
    const untilMs = performance.now() + maxTurnMs;
    for (let next = rest.next(); next.done !== true; next = rest.next()) {
      const waiting = next.value;
      if (this.#waiting.has(waiting) && this.#isThrough(waiting)) this.remove(waiting);
      if (performance.now() < untilMs) continue;
      this.#reactor.setTimer(0, () => this.#goOn(rest));
      return;
    }
    this.#isPoking = this.#hasChanged;
    if (this.#hasChanged) this.#reactor.setTimer(0, () => this.#round());
  }

  /** An exception is that connection's end, not that of those behind it. */
  #isThrough(waiting: Waiting): boolean {
    try {
      return waiting.tryStart();
    } catch (error) {
      this.#log.error({ err: error, pod: waiting.podUid }, 'a waiting connection could not be started');
      waiting.giveUp();
      return true;
    }
  }
}
