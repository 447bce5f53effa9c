import { describe, expect, test } from '@jest/globals';
import { Authorizer, type ConnectionFacts, emptyMatch } from '../../../mesh/policy/index.js';
import { policyWith, updateWith, workloadWith } from '../../../mesh/store/fixtures.js';
import { createStore, type Workload } from '../../../mesh/store/index.js';
import { newTunnelCounters, StoreView } from '../context.js';
import type { ConnectionSummary, WorkerPod } from '../messages.js';
import { ConnectionTable, type TrackedConnection } from './connection-table.js';
import { type Admission, failureOf, PolicyGuard } from './policy-guard.js';

const denyPort = (port: number) =>
  policyWith({ key: 'shop/deny', groups: [[[{ ...emptyMatch, destinationPorts: [port] }]]] });
const web = workloadWith({ uid: 'web', name: 'web', namespace: 'shop', serviceAccount: 'web' });
const pod = { uid: 'u', name: 'web', namespace: 'shop', serviceAccount: 'web' } as WorkerPod;
const toPort = (destinationPort: number): ConnectionFacts => ({
  identity: 'spiffe://cluster.local/ns/shop/sa/client',
  sourceAddress: '10.0.0.1',
  destinationAddress: '10.0.0.2',
  destinationPort,
});

/** Timers that a test fires. */
class Turns {
  readonly #waiting: { readonly delayMs: number; readonly callback: () => void }[] = [];

  setTimer(delayMs: number, callback: () => void) {
    this.#waiting.push({ delayMs, callback });
    return { cancel() {} };
  }

  get count(): number {
    return this.#waiting.length;
  }

  readonly nowMs = 0;
  exceptions = 0;

  /** The delay of the timer that fired; undefined: there was none. As in the reactor, an exception is counted. */
  next(): number | undefined {
    const timer = this.#waiting.shift();
    try {
      timer?.callback();
    } catch {
      this.exceptions++;
    }
    return timer?.delayMs;
  }

  all(): void {
    while (this.next() !== undefined);
  }
}

class Tracked implements TrackedConnection {
  readonly podUid = pod.uid;
  readonly admission: Admission | null;
  readonly #table: ConnectionTable;
  readonly movedBytes = 0;
  cause: string | null = null;

  constructor(table: ConnectionTable, admission: Admission | null) {
    this.#table = table;
    this.admission = admission;
    table.add(this);
  }

  summary(): ConnectionSummary {
    throw new Error('nobody asks');
  }

  end(): boolean {
    throw new Error('policies reset');
  }

  abort(cause: string): void {
    this.cause = cause;
    this.#table.remove(this);
  }
}

function makeBed(workload: Workload = web) {
  const store = createStore();
  const storeView = new StoreView({ network: '' }, { store });
  const turns = new Turns();
  const connections = new ConnectionTable({ quietMs: 1000 }, { reactor: turns });
  const counters = newTunnelCounters();
  const authorizer = new Authorizer({ trustDomain: 'cluster.local' }, { store });
  const guard = new PolicyGuard({ reactor: turns, store, storeView, connections, counters, authorizer });
  const apply = (fields: Parameters<typeof updateWith>[0]) => {
    store.apply(updateWith(fields));
    storeView.forget();
    guard.changed();
  };
  apply({ workloads: [workload] });
  turns.all();
  const open = (port: number) => {
    const own = storeView.ownOf(pod)!;
    const facts = toPort(port);
    if (!guard.judge(own, facts).allowed) return null;
    return new Tracked(connections, guard.admission(pod, own, facts));
  };
  return { store, connections, turns, counters, guard, apply, open };
}

describe('policies that change', () => {
  test('are asked of every connection, even if one of them throws; what cannot be judged is reset', () => {
    const bed = makeBed();
    const broken = bed.open(80)!;
    Object.defineProperty(broken.admission!.facts, 'destinationPort', {
      get: () => {
        throw new Error('broken');
      },
    });
    const doomed = bed.open(80)!;
    bed.apply({ policies: [denyPort(80)] });
    bed.turns.all();
    expect(bed.turns.exceptions).toBe(1);
    expect([broken.cause, doomed.cause]).toEqual([
      'its policies could not be evaluated: broken',
      expect.stringContaining('shop/deny'),
    ]);
    const later = bed.open(81)!;
    bed.apply({ policies: [denyPort(81)] });
    bed.turns.all();
    expect(later.cause).not.toBeNull();
  });

  test('close the open connections that are now denied, and say who denied; others go on', () => {
    const bed = makeBed();
    const doomed = bed.open(80)!;
    const other = bed.open(81)!;
    const outbound = new Tracked(bed.connections, null);
    bed.apply({ policies: [denyPort(80)] });
    expect(bed.open(80)).toBeNull();
    expect(doomed.cause).toBeNull();
    bed.turns.all();
    expect([doomed.cause, other.cause, outbound.cause]).toEqual([
      'connection closed due to policy rejection: explicitly denied by: shop/deny',
      null,
      null,
    ]);
    expect(failureOf(doomed.admission, doomed.cause!)).toMatchObject({
      flag: 'DENY',
      verdict: { policy: 'shop/deny', rule: 0 },
    });
    expect(failureOf(other.admission, 'reset')).toEqual({ flag: 'CONNECT', message: 'reset' });
    expect(failureOf(other.admission, 'lost', { revocation: 'is revoked' })).toEqual({
      flag: 'CERT_REVOKED',
      message: 'is revoked',
    });
    expect(bed.counters.resetPolicy).toBe(2);
  });

  test('so does a workload that names another policy', () => {
    const bed = makeBed();
    const selecting = { ...denyPort(80), scope: 'workload-selector' as const };
    bed.apply({ policies: [selecting] });
    bed.turns.all();
    const doomed = bed.open(80)!;
    bed.apply({ workloads: [{ ...web, authorizationPolicies: ['shop/deny'] }] });
    bed.turns.all();
    expect(doomed.cause).toContain('shop/deny');
  });

  test('a policy that comes after the workload that names it closes nothing that it allows', () => {
    const bed = makeBed();
    const open = bed.open(81)!;
    bed.apply({ workloads: [{ ...web, authorizationPolicies: ['shop/deny'] }] });
    expect(bed.open(81)).toBeNull();
    bed.apply({ policies: [{ ...denyPort(80), scope: 'workload-selector' }] });
    expect(bed.turns.count).toBe(1);
    bed.turns.all();
    expect(open.cause).toBeNull();
    expect(bed.open(81)).not.toBeNull();
    bed.apply({ removedPolicies: ['shop/deny'] });
    bed.turns.all();
    expect(open.cause).toContain('is not known: shop/deny');
  });

  test('a workload that is gone leaves its connections under the policies it had', () => {
    const bed = makeBed();
    const open = bed.open(80)!;
    bed.apply({ removed: ['web'] });
    bed.turns.all();
    expect(open.cause).toBeNull();
    bed.apply({ policies: [denyPort(80)] });
    bed.turns.all();
    expect(open.cause).toContain('shop/deny');
  });

  test('thousands of connections are looked at in turns, also while others come and go, and policies change again', () => {
    const bed = makeBed();
    const opened = Array.from({ length: 3000 }, (_, i) => bed.open(80 + (i % 2))!);
    bed.apply({ policies: [denyPort(80)] });
    expect(bed.turns.next()).toBe(200);
    const first = opened.filter((one) => one.cause !== null).length;
    expect(first).toBeGreaterThan(0);
    expect(first).toBeLessThanOrEqual(500);
    opened.at(-1)!.abort('ended by itself');
    const late = bed.open(83)!;
    bed.apply({ policies: [{ ...denyPort(81), key: 'shop/deny-too' }] });
    bed.turns.all();
    expect(bed.connections.size).toBe(1);
    expect(late.cause).toBeNull();
    expect(opened.every((one) => one.cause !== null)).toBe(true);
  });
});
