import { compareText, GroupedIndex } from './grouped-index.js';
import type { AuthorizationPolicy, PolicySet, Workload } from './types.js';

/** Remembered; more only where workloads come and go that name policies in ever other combinations. */
const maxSelections = 4096;

/** Workloads of one namespace that name the same policies: the same ones apply to them. */
interface Selection {
  readonly namespace: string;
  readonly named: ReadonlySet<string>;
  readonly set: PolicySet;
}

/** Which policies apply to a workload as destination (sheet 3.6, "Policies that apply"). */
export class PolicyIndex {
  readonly #byKey = new Map<string, AuthorizationPolicy>();
  /** Those of scope `namespace` by namespace, and those of scope `global` under `*`, which is no namespace's name. */
  readonly #byScope = new GroupedIndex<AuthorizationPolicy>();
  #isComplete = false;
  #ofWorkload = new WeakMap<Workload, PolicySet>();
  readonly #selections = new Map<string, Selection>();
  /** The sets of all selections, by what is in them. */
  readonly #sets = new Map<string, PolicySet>();

  put(policy: AuthorizationPolicy): void {
    this.remove(policy.key);
    this.#byKey.set(policy.key, policy);
    const scope = scopeKeyOf(policy);
    if (scope !== null) this.#byScope.add(scope, policy);
    this.#forgetThoseOf(policy);
  }

  remove(key: string): void {
    const policy = this.#byKey.get(key);
    if (policy === undefined) return;
    this.#byKey.delete(key);
    const scope = scopeKeyOf(policy);
    if (scope !== null) this.#byScope.remove(scope, policy);
    this.#forgetThoseOf(policy);
  }

  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** Until then there may be policies that nobody has told of. */
  setComplete(isComplete: boolean): void {
    if (isComplete !== this.#isComplete) this.#forgetAll();
    this.#isComplete = isComplete;
  }

  clear(): void {
    this.#byKey.clear();
    this.#byScope.clear();
    this.#forgetAll();
  }

  all(): readonly AuthorizationPolicy[] {
    return [...this.#byKey.values()];
  }

  /** The same object for all workloads to which the same policies apply, until one of these changes. */
  of(workload: Workload): PolicySet {
    let set = this.#ofWorkload.get(workload);
    if (set === undefined) {
      set = this.#selectedBy(workload);
      this.#ofWorkload.set(workload, set);
    }
    return set;
  }

  #selectedBy({ namespace, authorizationPolicies }: Workload): PolicySet {
    // The controller's text: no separator is safe in it.
    const key = JSON.stringify([namespace, ...authorizationPolicies]);
    const known = this.#selections.get(key);
    if (known !== undefined) return known.set;
    if (this.#selections.size >= maxSelections) this.#forgetAll();
    const named = new Set(authorizationPolicies);
    const set = this.#shared(this.#collect(namespace, named));
    this.#selections.set(key, { namespace, named, set });
    return set;
  }

  #collect(namespace: string, named: ReadonlySet<string>): PolicySet {
    const found = new Set([...this.#byScope.get('*'), ...this.#byScope.get(namespace)]);
    const missing: string[] = [];
    for (const key of named) {
      const policy = this.#byKey.get(key);
      if (policy === undefined) missing.push(key);
      else found.add(policy);
    }
    const policies = [...found].sort((a, b) => compareText(a.key, b.key));
    return { policies, missing: missing.sort(compareText), isComplete: this.#isComplete };
  }

  #shared(set: PolicySet): PolicySet {
    const key = contentKeyOf(set);
    const known = this.#sets.get(key);
    if (known !== undefined) return known;
    this.#sets.set(key, set);
    return set;
  }

  /** `policy` has come or gone. */
  #forgetThoseOf(policy: AuthorizationPolicy): void {
    let isAny = false;
    for (const [key, { namespace, named }] of this.#selections) {
      const isOfScope =
        policy.scope === 'global' || (policy.scope === 'namespace' && policy.namespace === namespace);
      if (!isOfScope && !named.has(policy.key)) continue;
      this.#selections.delete(key);
      isAny = true;
    }
    if (!isAny) return;
    this.#ofWorkload = new WeakMap();
    this.#sets.clear();
    for (const { set } of this.#selections.values()) this.#sets.set(contentKeyOf(set), set);
  }

  #forgetAll(): void {
    this.#ofWorkload = new WeakMap();
    this.#selections.clear();
    this.#sets.clear();
  }
}

function scopeKeyOf(policy: AuthorizationPolicy): string | null {
  if (policy.scope === 'workload-selector') return null;
  return policy.scope === 'global' ? '*' : policy.namespace;
}

function contentKeyOf({ policies, missing }: PolicySet): string {
  return JSON.stringify([policies.map((policy) => policy.key), missing]);
}
