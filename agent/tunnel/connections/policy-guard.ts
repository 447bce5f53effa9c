import { messageOf } from '../../../mesh/common/errors.js';
import type { Reactor } from '../../../mesh/io/index.js';
import {
  type Authorizer,
  type ConnectionFacts,
  rejectionText,
  type Verdict,
} from '../../../mesh/policy/index.js';
import type { PolicySet, Store, Workload } from '../../../mesh/store/index.js';
import type { ConnectionFailure } from '../../../mesh/telemetry/index.js';
import type { StoreView, TunnelCounters } from '../context.js';
import type { WorkerPod } from '../messages.js';
import type { ConnectionTable, TrackedConnection } from './connection-table.js';

/**
 * Between a change and the look at what is open: workloads and policies come in separate pushes, and a workload that for a moment names a policy which
 * is still on its way is no reason to cut its connections. New ones are refused at once.
 */
const settleMs = 200;
/** Of one turn: connections looked at, and time, after which others get theirs. */
const maxPerTurn = 500;
const maxTurnMs = 4;

/** What an open inbound connection keeps, to be judged again. */
export interface Admission {
  readonly pod: WorkerPod;
  readonly facts: ConnectionFacts;
  /** Under which it was judged last, */
  policies: PolicySet;
  /** as the connection of this workload. */
  own: Workload;
  /** Then it is denied now, and about to end. */
  denied: Verdict | null;
}

export interface PolicyGuardDeps {
  readonly reactor: Pick<Reactor, 'setTimer'>;
  readonly store: Store;
  readonly storeView: StoreView;
  readonly authorizer: Authorizer;
  readonly connections: ConnectionTable;
  readonly counters: TunnelCounters;
}

/** Lets inbound connections in by policy, and closes those that a change of policies denies. */
export class PolicyGuard {
  readonly #deps: PolicyGuardDeps;
  #isLooking = false;
  #hasChanged = false;

  constructor(deps: PolicyGuardDeps) {
    this.#deps = deps;
  }

  judge(own: Workload, facts: ConnectionFacts): Verdict {
    const verdict = this.#deps.authorizer.authorize(own, facts);
    if (!verdict.allowed) this.#deps.counters.resetPolicy++;
    return verdict;
  }

  /** Of a connection that was let in. */
  admission(pod: WorkerPod, own: Workload, facts: ConnectionFacts): Admission {
    return { pod, facts, own, policies: this.#deps.store.policiesOf(own), denied: null };
  }

  /** Policies or workloads have changed: what is open is looked at soon. */
  changed(): void {
    this.#hasChanged = true;
    if (this.#isLooking) return;
    this.#isLooking = true;
    this.#deps.reactor.setTimer(settleMs, () => {
      this.#hasChanged = false;
      this.#look(this.#deps.connections.values());
    });
  }

  /** An exception ends its connection and this turn; the rest is looked at all the same. */
  #look(rest: Iterator<TrackedConnection>): void {
    let isDone = false;
    try {
      isDone = this.#judgeSome(rest);
    } finally {
      if (!isDone) this.#deps.reactor.setTimer(0, () => this.#look(rest));
    }
    if (!isDone) return;
    this.#isLooking = false;
    if (this.#hasChanged) this.changed();
  }

  /** True: there are no more. */
  #judgeSome(rest: Iterator<TrackedConnection>): boolean {
    const untilMs = performance.now() + maxTurnMs;
    let judged = 0;
    while (judged < maxPerTurn && performance.now() < untilMs) {
      const next = rest.next();
      if (next.done === true) return true;
      const { admission } = next.value;
      if (admission != null && this.#judgeAgain(next.value, admission)) judged++;
    }
    return false;
  }

  /** False: the same policies apply as before. */
  #judgeAgain(connection: TrackedConnection, admission: Admission): boolean {
    const { store, storeView } = this.#deps;
    // A workload that is not there any more: its pod's end is told otherwise. Until then it is what it was.
    const own = storeView.ownOf(admission.pod) ?? admission.own;
    const policies = store.policiesOf(own);
    if (policies === admission.policies) return false;
    admission.policies = policies;
    admission.own = own;
    try {
      const verdict = this.judge(own, admission.facts);
      if (verdict.allowed) return true;
      admission.denied = verdict;
    } catch (error) {
      connection.abort(`its policies could not be evaluated: ${messageOf(error)}`);
      throw error;
    }
    connection.abort(rejectionText(admission.denied));
    return true;
  }
}

/** How telemetry tells of a connection that policies refused. */
export function denialOf(verdict: Verdict): ConnectionFailure {
  return { flag: 'DENY', message: rejectionText(verdict), verdict };
}

/** Why an inbound connection failed: policies, its tunnel's peer that is revoked, or what `message` says. */
export function failureOf(
  admission: Admission | null,
  message: string,
  tunnel: { readonly revocation: string | null } | null = null,
): ConnectionFailure {
  const denied = admission?.denied ?? null;
  return denied === null ? lossOf(tunnel, message) : denialOf(denied);
}

/** Why a tunnel was lost. */
export function lossOf(
  tunnel: { readonly revocation: string | null } | null,
  message: string,
): ConnectionFailure {
  const revocation = tunnel?.revocation ?? null;
  return revocation === null ? { flag: 'CONNECT', message } : { flag: 'CERT_REVOKED', message: revocation };
}
