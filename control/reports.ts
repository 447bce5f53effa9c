import type { Log } from '../mesh/log/index.js';
import type { Limitation, ObjectKey, Report } from './model/index.js';

/** What of the objects in force is not in force as written: kept for people, logged when it comes and when it goes. */
export class Reports {
  readonly #log: Log;
  readonly #byObject: Map<ObjectKey, readonly Limitation[]>;

  constructor(deps: { readonly log: Log }) {
    this.#log = deps.log;
    this.#byObject = new Map();
  }

  /** Replaces what is known of these objects. */
  update(limitations: ReadonlyMap<ObjectKey, readonly Limitation[]>): void {
    for (const [object, list] of limitations) {
      const before = new Set((this.#byObject.get(object) ?? []).map(textOf));
      for (const limitation of list)
        if (!before.delete(textOf(limitation)))
          this.#log.warn({ object, ...limitation }, 'not in force as written');
      if (before.size > 0) this.#log.info({ object, count: before.size }, 'reports are gone');
      if (list.length > 0) this.#byObject.set(object, list);
      else this.#byObject.delete(object);
    }
  }

  /** By object. */
  get all(): readonly Report[] {
    return [...this.#byObject].flatMap(([object, list]) =>
      list.map((limitation) => ({ object, ...limitation })),
    );
  }
}

function textOf({ field, reason, effect }: Limitation): string {
  return `${field}: ${reason}: ${effect}`;
}
