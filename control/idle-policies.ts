import type { ManifestProblem } from '../mesh/manifests/index.js';
import { keyOfObject, type Model, type ObjectKey } from './model/index.js';

export interface IdlePoliciesOptions {
  /** How often it is looked for, milliseconds. */
  readonly sweepMs: number;
  /** What has come, or gone, is told once it has lasted for so long, milliseconds: pods of a policy come and go. */
  readonly afterMs: number;
}

export const IDLE_POLICIES_DEFAULTS: IdlePoliciesOptions = { sweepMs: 10_000, afterMs: 30_000 };

export interface IdlePoliciesDeps {
  readonly model: { readonly policies: Pick<Model['policies'], 'idle'> };
  /** It is told of these from now on, or no longer. */
  readonly onChange: (keys: readonly ObjectKey[]) => void;
}

/** Policies whose selector takes no pod: a mistake perhaps, though one may well be there before its pods. Nothing is wrong with them; people are told. */
export class IdlePolicies {
  readonly #options: IdlePoliciesOptions;
  readonly #deps: IdlePoliciesDeps;
  #told: ReadonlySet<ObjectKey> = new Set();
  /** What is otherwise than told, since when. */
  #since: ReadonlyMap<ObjectKey, number> = new Map();
  #sweep: NodeJS.Timeout | null = null;

  constructor(options: IdlePoliciesOptions, deps: IdlePoliciesDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Once everything has been seen. What is idle then counts at once, so that a restart rewrites no status. */
  start(): void {
    this.#told = this.#now();
    this.#sweep = setInterval(() => this.look(performance.now()), this.#options.sweepMs).unref();
  }

  stop(): void {
    if (this.#sweep !== null) clearInterval(this.#sweep);
    this.#sweep = null;
  }

  has(key: ObjectKey): boolean {
    return this.#told.has(key);
  }

  /** For `culvertctl status`. */
  get notices(): readonly ManifestProblem[] {
    return [...this.#told].sort().map((key) => {
      const [kind = '', ...name] = key.split('/');
      return { file: '', line: 0, kind, name: name.join('/'), ...NOTICE };
    });
  }

  look(nowMs: number): void {
    const now = this.#now();
    const differ = [...new Set([...this.#told, ...now])].filter(
      (key) => this.#told.has(key) !== now.has(key),
    );
    const since = new Map(differ.map((key) => [key, this.#since.get(key) ?? nowMs]));
    const lasting = differ.filter((key) => nowMs - since.get(key)! >= this.#options.afterMs);
    for (const key of lasting) since.delete(key);
    this.#since = since;
    if (lasting.length === 0) return;
    const told = new Set(this.#told);
    for (const key of lasting) if (!told.delete(key)) told.add(key);
    this.#told = told;
    this.#deps.onChange(lasting);
  }

  #now(): Set<ObjectKey> {
    return new Set(this.#deps.model.policies.idle.map(keyOfObject));
  }
}

const NOTICE = {
  field: 'spec.selector',
  reason: 'selects no pod at present',
  effect: 'it holds for pods that come',
} as const;
