import { labelsText } from './exposition.js';
import type { MetricFamily, PolicyDecision, PolicyDenials, PolicyVerdict } from './types.js';

/** Rows on main; what other policies deny is counted under `other`. */
const maxRows = 2000;

type Counted = Omit<PolicyDenials, 'count'> & { count: number };

/** What policies denied, or would have denied, in one worker since the last batch. */
export class PolicyDenialCounts {
  readonly #counts = new Map<string, Counted>();

  add(verdict: PolicyVerdict): void {
    if (!verdict.allowed) this.#count(verdict, false);
    for (const decision of verdict.dryRun) this.#count(decision, true);
  }

  take(): PolicyDenials[] {
    const taken = [...this.#counts.values()];
    this.#counts.clear();
    return taken;
  }

  #count({ policy, reason }: PolicyDecision, dryRun: boolean): void {
    const denials = { policy: policy ?? '', reason, dryRun, count: 1 };
    const known = this.#counts.get(labelsOf(denials));
    if (known === undefined) this.#counts.set(labelsOf(denials), denials);
    else known.count++;
  }
}

/** Main's sum over all workers. */
export class PolicyDenialTotals {
  readonly #totals = new Map<string, number>();

  merge(denials: readonly PolicyDenials[]): void {
    for (const one of denials) {
      const own = labelsOf(one);
      const isKnown = this.#totals.has(own) || this.#totals.size < maxRows;
      const labels = isKnown ? own : labelsOf({ ...one, policy: 'other' });
      this.#totals.set(labels, (this.#totals.get(labels) ?? 0) + one.count);
    }
  }

  collect(): MetricFamily {
    return {
      name: 'culvert_policy_denials_total',
      help: 'Inbound connections that an authorization policy refused or closed, or with dry_run="true" would have',
      type: 'counter',
      samples: [...this.#totals].map(([labels, value]) => ({ labels, value })),
    };
  }
}

function labelsOf({ policy, reason, dryRun }: Omit<PolicyDenials, 'count'>): string {
  return labelsText(['policy', 'reason', 'dry_run'], [policy, reason, String(dryRun)]);
}
