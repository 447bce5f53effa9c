import { AddressTable } from './address-table.js';
import type { CompiledRule } from './compiled-policy.js';
import { anyPort } from './index-places.js';
import type { Subject } from './subject.js';

interface Filed {
  readonly rule: CompiledRule;
  /** Rules are named by verdicts in this order. */
  readonly order: number;
}

/** Rules that demand the same identity and port. Lists are in order. */
interface Place {
  readonly anySource: Filed[];
  /** Null: none demands a source address. */
  bySource: AddressTable<Filed> | null;
}

/** Rules by the identity, port and source address that they demand. */
export class RuleIndex {
  readonly #places = new Map<string, Map<number, Place>>();

  /** `rules` in the order in which verdicts prefer them. */
  constructor(rules: readonly CompiledRule[]) {
    for (let order = 0; order < rules.length; order++) {
      const filed = { rule: rules[order]!, order };
      const { identityKeys, ports, sources } = filed.rule.places;
      for (const identityKey of identityKeys)
        for (const port of ports) for (const source of sources) this.#add(identityKey, port, source, filed);
    }
  }

  /** The first rule that matches. */
  first(subject: Subject): CompiledRule | null {
    let best: Filed | null = null;
    for (const key of subject.peer.indexKeys) {
      const ports = this.#places.get(key);
      if (ports === undefined) continue;
      best = firstAt(ports.get(subject.port), subject, best);
      best = firstAt(ports.get(anyPort), subject, best);
    }
    return best?.rule ?? null;
  }

  /** Of each policy the first rule that matches, in order. */
  firstOfEach(subject: Subject): CompiledRule[] {
    const found = new Set<Filed>();
    for (const key of subject.peer.indexKeys) {
      const ports = this.#places.get(key);
      for (const port of [subject.port, anyPort])
        for (const list of listsAt(ports?.get(port), subject))
          for (const filed of list) if (filed.rule.matches(subject)) found.add(filed);
    }
    const rules = [...found].sort((a, b) => a.order - b.order).map((filed) => filed.rule);
    return rules.filter((rule, i) => rule.policy !== rules[i - 1]?.policy);
  }

  #add(
    identityKey: string,
    port: number,
    source: CompiledRule['places']['sources'][number],
    filed: Filed,
  ): void {
    let ports = this.#places.get(identityKey);
    if (ports === undefined) {
      ports = new Map();
      this.#places.set(identityKey, ports);
    }
    let place = ports.get(port);
    if (place === undefined) {
      place = { anySource: [], bySource: null };
      ports.set(port, place);
    }
    if (source === null) {
      place.anySource.push(filed);
      return;
    }
    place.bySource ??= new AddressTable();
    place.bySource.add(source, filed);
  }
}

/** The first that matches, if it comes before `best`. */
function firstAt(place: Place | undefined, subject: Subject, best: Filed | null): Filed | null {
  if (place === undefined) return best;
  let first = firstOf(place.anySource, subject, best);
  if (place.bySource === null) return first;
  for (const list of place.bySource.listsAt(subject.source)) first = firstOf(list, subject, first);
  return first;
}

function firstOf(list: readonly Filed[], subject: Subject, best: Filed | null): Filed | null {
  for (const one of list) {
    if (best !== null && one.order >= best.order) break;
    if (one.rule.matches(subject)) return one;
  }
  return best;
}

function listsAt(place: Place | undefined, subject: Subject): readonly (readonly Filed[])[] {
  if (place === undefined) return [];
  return [place.anySource, ...(place.bySource?.listsAt(subject.source) ?? [])];
}
