import { FETCH_PRIORITIES, type FetchPriority } from './types.js';

/** Names waiting for a fetch, most urgent first and in order of arrival within one urgency. */
export class FetchQueue {
  private readonly waiting: Readonly<Record<FetchPriority, Set<string>>> = {
    live: new Set(),
    'warm-up': new Set(),
    background: new Set(),
  };

  has(name: string): boolean {
    return FETCH_PRIORITIES.some((priority) => this.waiting[priority].has(name));
  }

  /** Adds `name`, or moves it forward if it waits with less urgency. */
  add(name: string, priority: FetchPriority): void {
    for (const other of FETCH_PRIORITIES) {
      if (other !== priority && this.waiting[other].has(name)) {
        if (FETCH_PRIORITIES.indexOf(other) < FETCH_PRIORITIES.indexOf(priority)) return;
        this.waiting[other].delete(name);
      }
    }
    this.waiting[priority].add(name);
  }

  remove(name: string): void {
    for (const priority of FETCH_PRIORITIES) this.waiting[priority].delete(name);
  }

  take(): string | null {
    for (const priority of FETCH_PRIORITIES) {
      for (const name of this.waiting[priority]) {
        this.waiting[priority].delete(name);
        return name;
      }
    }
    return null;
  }
}
