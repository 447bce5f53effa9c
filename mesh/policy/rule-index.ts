import type { CompiledRule } from './compiled-policy.js';
import { anyPort } from './index-places.js';
import type { Subject } from './subject.js';

interface Filed {
  readonly rule: CompiledRule;
  /** Rules are named by verdicts in this order. */
  readonly order: number;
}

/** Rules by the identity and the port that they demand. */
export class RuleIndex {
  readonly #places = new Map<string, Map<number, Filed[]>>();

  /** `rules` in the order in which verdicts prefer them. */
  constructor(rules: readonly CompiledRule[]) {
    for (const [order, rule] of rules.entries()) {
      const filed = { rule, order };
      for (const { identityKey, port } of rule.places) this.#at(identityKey, port).push(filed);
    }
  }

  /** The first rule that matches. */
  first(subject: Subject): CompiledRule | null {
    let best: Filed | null = null;
    for (const key of subject.peer.indexKeys) {
      const ports = this.#places.get(key);
      if (ports === undefined) continue;
      best = firstOf(ports.get(subject.port), subject, best);
      best = firstOf(ports.get(anyPort), subject, best);
    }
    return best?.rule ?? null;
  }

  /** Of each policy the first rule that matches, in order. */
  firstOfEach(subject: Subject): CompiledRule[] {
    const found = new Set<Filed>();
    for (const key of subject.peer.indexKeys) {
      const ports = this.#places.get(key);
      for (const port of [subject.port, anyPort])
        for (const filed of ports?.get(port) ?? []) if (filed.rule.matches(subject)) found.add(filed);
    }
    const rules = [...found].sort((a, b) => a.order - b.order).map((filed) => filed.rule);
    return rules.filter((rule, i) => rule.policy !== rules[i - 1]?.policy);
  }

  #at(identityKey: string, port: number): Filed[] {
    let ports = this.#places.get(identityKey);
    if (ports === undefined) {
      ports = new Map();
      this.#places.set(identityKey, ports);
    }
    const filed = ports.get(port) ?? [];
    ports.set(port, filed);
    return filed;
  }
}

/** The first of `filed` that matches, if it comes before `best`. */
function firstOf(filed: readonly Filed[] | undefined, subject: Subject, best: Filed | null): Filed | null {
  if (filed === undefined) return best;
  for (const one of filed) {
    if (best !== null && one.order >= best.order) break;
    if (one.rule.matches(subject)) return one;
  }
  return best;
}
