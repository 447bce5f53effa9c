import type { Timer } from './types.js';

const TICK_MS = 4;
const SLOTS = 1024;

class WheelTimer implements Timer {
  callback: (() => void) | null;
  readonly dueTick: number;
  next: WheelTimer | null = null;
  previous: WheelTimer | null = null;
  isLinked = true;
  readonly #wheel: TimerWheel;

  constructor(wheel: TimerWheel, dueTick: number, callback: () => void) {
    this.#wheel = wheel;
    this.dueTick = dueTick;
    this.callback = callback;
  }

  cancel(): void {
    this.callback = null;
    if (this.isLinked) this.#wheel.unlink(this);
  }
}

/**
 * One-shot timers in a hashed wheel: setting and cancelling are O(1), which is what deadlines that almost never fire need. A slot holds the
 * timers of every turn of the wheel (4 s); those of later turns are passed over.
 */
export class TimerWheel {
  readonly #slots: (WheelTimer | null)[] = new Array<WheelTimer | null>(SLOTS).fill(null);
  #tick: number;
  /** No timer is due before this tick; may be too early after a cancel. */
  #nextTick = Number.POSITIVE_INFINITY;
  #count = 0;

  constructor(nowMs: number) {
    this.#tick = Math.floor(nowMs / TICK_MS);
  }

  get size(): number {
    return this.#count;
  }

  set(nowMs: number, delayMs: number, callback: () => void): Timer {
    const dueTick = Math.max(Math.ceil((nowMs + delayMs) / TICK_MS), this.#tick + 1);
    const timer = new WheelTimer(this, dueTick, callback);
    const slot = dueTick % SLOTS;
    const head = this.#slots[slot]!;
    timer.next = head;
    if (head !== null) head.previous = timer;
    this.#slots[slot] = timer;
    this.#count++;
    if (dueTick < this.#nextTick) this.#nextTick = dueTick;
    return timer;
  }

  unlink(timer: WheelTimer): void {
    if (timer.previous === null) this.#slots[timer.dueTick % SLOTS] = timer.next;
    else timer.previous.next = timer.next;
    if (timer.next !== null) timer.next.previous = timer.previous;
    timer.next = timer.previous = null;
    timer.isLinked = false;
    this.#count--;
    if (this.#count === 0) this.#nextTick = Number.POSITIVE_INFINITY;
  }

  /** Milliseconds until a timer may be due; Infinity without timers. */
  msUntilNext(nowMs: number): number {
    return this.#count === 0
      ? Number.POSITIVE_INFINITY
      : Math.max(0, Math.ceil(this.#nextTick * TICK_MS - nowMs));
  }

  /** Hands every timer that is due to `run` (which calls its callback), in order of their ticks. */
  expire(nowMs: number, run: (callback: () => void) => void): void {
    const now = Math.floor(nowMs / TICK_MS);
    if (now < this.#nextTick) {
      this.#tick = Math.max(this.#tick, now);
      return;
    }
    const from = Math.max(this.#tick + 1, now - SLOTS + 1);
    const due: WheelTimer[] = [];
    for (let tick = from; tick <= now; tick++) this.#collect(tick % SLOTS, now, due);
    this.#tick = now;
    this.#nextTick = this.#findNext();
    due.sort((a, b) => a.dueTick - b.dueTick);
    for (const timer of due) {
      const callback = timer.callback;
      timer.callback = null;
      if (callback !== null) run(callback);
    }
  }

  #collect(slot: number, now: number, due: WheelTimer[]): void {
    let timer = this.#slots[slot]!;
    while (timer !== null) {
      const next: WheelTimer | null = timer.next;
      if (timer.dueTick <= now) {
        this.unlink(timer);
        due.push(timer);
      }
      timer = next!;
    }
  }

  #findNext(): number {
    let least = Number.POSITIVE_INFINITY;
    if (this.#count === 0) return least;
    for (let ahead = 1; ahead <= SLOTS; ahead++) {
      const tick = this.#tick + ahead;
      for (let timer = this.#slots[tick % SLOTS]!; timer !== null; timer = timer.next!) {
        if (timer.dueTick === tick) return tick;
        if (timer.dueTick < least) least = timer.dueTick;
      }
    }
    return least;
  }
}
