import { GroupedIndex } from './grouped-index.js';
import type { AuthorizationPolicy, Workload } from './types.js';

/** Which policies apply to a workload as destination (sheet 3.6, "Policies that apply"). */
export class PolicyIndex {
  readonly #byKey = new Map<string, AuthorizationPolicy>();
  /** Enforced policies of scope `namespace` by namespace, and those of scope `global` under `*`, which is no namespace's name. */
  readonly #byScope = new GroupedIndex<AuthorizationPolicy>();

  put(policy: AuthorizationPolicy): void {
    this.remove(policy.key);
    this.#byKey.set(policy.key, policy);
    const scope = scopeKeyOf(policy);
    if (scope !== null) this.#byScope.add(scope, policy);
  }

  remove(key: string): void {
    const policy = this.#byKey.get(key);
    if (policy === undefined) return;
    this.#byKey.delete(key);
    const scope = scopeKeyOf(policy);
    if (scope !== null) this.#byScope.remove(scope, policy);
  }

  clear(): void {
    this.#byKey.clear();
    this.#byScope.clear();
  }

  all(): readonly AuthorizationPolicy[] {
    return [...this.#byKey.values()];
  }

  /** An enforced policy applies, or one that the workload names is missing: unknown is not "none". */
  appliesTo(workload: Workload): boolean {
    if (this.#byScope.has('*') || this.#byScope.has(workload.namespace)) return true;
    return workload.authorizationPolicies.some((key) => {
      const policy = this.#byKey.get(key);
      return policy === undefined || !policy.dryRun;
    });
  }
}

function scopeKeyOf(policy: AuthorizationPolicy): string | null {
  if (policy.dryRun || policy.scope === 'workload-selector') return null;
  return policy.scope === 'global' ? '*' : policy.namespace;
}
