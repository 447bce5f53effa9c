import type { Log } from '../mesh/log/index.js';
import {
  type Limitation,
  type MeshObject,
  MODEL_DEFAULTS,
  Model,
  type ModelChange,
  type ObjectKey,
  type Report,
} from './model/index.js';
import { limitationsOf, type TranslateOptions, translateAuthorizations, VipPool } from './translate/index.js';

/** What of the objects in force is not in force as written: kept for people, logged when it comes and when it goes. */
export class Reports {
  readonly #log: Log;
  readonly #onChange: (keys: Iterable<ObjectKey>) => void;
  readonly #byObject: Map<ObjectKey, readonly Limitation[]>;

  constructor(deps: { readonly log: Log; readonly onChange?: (keys: Iterable<ObjectKey>) => void }) {
    this.#log = deps.log;
    this.#onChange = deps.onChange ?? (() => {});
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
    this.#onChange(limitations.keys());
  }

  of(object: ObjectKey): readonly Limitation[] {
    return this.#byObject.get(object) ?? [];
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

/** What of these objects, all that there are, is not in force as written. */
export function reportsOf(
  objects: ReadonlyMap<ObjectKey, MeshObject>,
  options: TranslateOptions,
): readonly Report[] {
  const changes: ModelChange[] = [];
  const model = new Model({ ...MODEL_DEFAULTS, ...options }, { onChange: (change) => changes.push(change) });
  model.apply({ upserted: objects, removed: [] });
  model.flush();
  return changes
    .flatMap((change) => [
      ...translateAuthorizations(model, change.policies, options).limitations,
      ...limitationsOf(change, model, new VipPool(), options),
    ])
    .flatMap(([object, list]) => list.map((limitation) => ({ object, ...limitation })));
}
