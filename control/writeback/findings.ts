import type { EventRecorder } from '../../mesh/kube-write/index.js';
import type { ObjectKey } from '../model/index.js';
import type { Finding, FindingSummary } from './types.js';

interface Known {
  readonly finding: Finding;
  readonly sinceMs: number;
  isTold: boolean;
}

/** What has been found in sweeps: told to people once it has lasted, and again when it comes again. */
export class Findings {
  readonly #events: Pick<EventRecorder, 'record'>;
  #known: Map<string, Known>;
  #tells: boolean;

  constructor(deps: { readonly events: Pick<EventRecorder, 'record'> }) {
    this.#events = deps.events;
    this.#known = new Map();
    this.#tells = false;
  }

  /** Begins, or ends, to tell people: all replicas look, one speaks. */
  set tells(value: boolean) {
    this.#tells = value;
    for (const known of this.#known.values()) known.isTold = false;
  }

  /** All that holds now. */
  update(findings: Iterable<Finding>, nowMs: number): void {
    const before = this.#known;
    this.#known = new Map();
    for (const finding of findings) {
      const key = keyOf(finding);
      const known = before.get(key);
      const now = { finding, sinceMs: known?.sinceMs ?? nowMs, isTold: known?.isTold ?? false };
      this.#known.set(key, now);
      if (!this.#tells || now.isTold || nowMs - now.sinceMs < finding.afterMs) continue;
      now.isTold = true;
      this.#events.record(finding);
    }
  }

  /** What has lasted. */
  summary(nowMs: number): readonly FindingSummary[] {
    return [...this.#known.values()]
      .filter(({ finding, sinceMs }) => nowMs - sinceMs >= finding.afterMs)
      .map(({ finding }) => ({ object: objectOf(finding), reason: finding.reason, note: finding.note }));
  }
}

/** Not its note: that may count. */
function keyOf(finding: Finding): string {
  return `${objectOf(finding)} ${finding.reason}`;
}

function objectOf({ regarding }: Finding): ObjectKey {
  const { kind, namespace, name } = regarding;
  return namespace === '' ? `${kind}/${name}` : `${kind}/${namespace}/${name}`;
}
