import { Memo } from '../common/memo.js';
import type { AuthorizationPolicy, PolicySet, Store, Workload } from '../store/types.js';
import { RangeTables } from './address-table.js';
import { CompiledPolicies } from './compiled-policies.js';
import { type CompiledPolicy, compilePolicy } from './compiled-policy.js';
import { explain } from './explain.js';
import { nobody, type PeerNames, peerNamesOf, Subject } from './subject.js';
import type { ConnectionFacts, Explanation, Verdict } from './types.js';

export interface AuthorizerOptions {
  readonly trustDomain: string;
  /** One and the same as `trustDomain`: a principal written with one of them means the peer in each. */
  readonly trustDomainAliases?: readonly string[];
}

export interface AuthorizerDeps {
  readonly store: Pick<Store, 'policiesOf'>;
}

/**
 * Whom a workload's policies let in (hbone-and-wds.md 3.6). Policies are made ready as connections ask, a little at a time; workloads to which the same
 * policies apply share what is compiled, for as long as the store gives the same set.
 */
export class Authorizer {
  readonly #store: AuthorizerDeps['store'];
  readonly #peers: Memo<PeerNames>;
  readonly #networks = new RangeTables();
  readonly #sets = new WeakMap<PolicySet, CompiledPolicies>();
  readonly #policies = new WeakMap<AuthorizationPolicy, CompiledPolicy>();

  constructor(options: AuthorizerOptions, deps: AuthorizerDeps) {
    this.#store = deps.store;
    const trustDomains = [...new Set([options.trustDomain, ...(options.trustDomainAliases ?? [])])];
    this.#peers = new Memo((identity) => peerNamesOf(identity, trustDomains));
  }

  /** Reads policies that are about to apply: otherwise the first connection does, all in one go. */
  prepare(policies: readonly AuthorizationPolicy[]): void {
    for (const policy of policies) this.#compiled(policy);
  }

  /** Whether `workload` takes this connection, and what decides it. */
  authorize(workload: Workload, connection: ConnectionFacts): Verdict {
    return this.#compiledFor(workload).judge(this.#subjectOf(connection));
  }

  /** The same verdict with all that led to it; slow. */
  explain(workload: Workload, connection: ConnectionFacts): Explanation {
    return explain(this.#compiledFor(workload), connection, this.#subjectOf(connection));
  }

  #subjectOf(connection: ConnectionFacts): Subject {
    const { identity } = connection;
    return new Subject(connection, identity === null ? nobody : this.#peers.of(identity), this.#networks);
  }

  #compiledFor(workload: Workload): CompiledPolicies {
    const set = this.#store.policiesOf(workload);
    let compiled = this.#sets.get(set);
    if (compiled === undefined) {
      compiled = new CompiledPolicies(set, (policy) => this.#compiled(policy));
      this.#sets.set(set, compiled);
    }
    return compiled;
  }

  #compiled(policy: AuthorizationPolicy): CompiledPolicy {
    let compiled = this.#policies.get(policy);
    if (compiled === undefined) {
      compiled = compilePolicy(policy, this.#networks);
      this.#policies.set(policy, compiled);
    }
    return compiled;
  }
}
