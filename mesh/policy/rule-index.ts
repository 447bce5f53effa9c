import { AddressTable } from './address-table.js';
import type { CompiledRule } from './compiled-policy.js';
import { anyPort, type IdentityDemand, type IndexPlaces } from './index-places.js';
import { PatternTable, valueAt } from './pattern-table.js';
import type { PeerNames, Subject } from './subject.js';

/** Filed by one question: 0.1 ms, 1 ms while the code is cold. */
const maxFiledAtOnce = 64;

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

type Ports = Map<number, Place>;

/**
 * Rules by the identity, port and source address that they demand. It files them in order, some at each question; those that are not filed yet are
 * compared one by one, so that nobody waits until all are.
 */
export class RuleIndex {
  readonly #rules: readonly CompiledRule[];
  #filed = 0;
  readonly #anyone: Ports = new Map();
  readonly #byIdentity: Readonly<Record<IdentityDemand['of'], PatternTable<Ports>>> = {
    principal: new PatternTable(),
    account: new PatternTable(),
    namespace: new PatternTable(),
  };

  /** `rules` in the order in which verdicts prefer them. */
  constructor(rules: readonly CompiledRule[]) {
    this.#rules = rules;
  }

  /** The first rule that matches. */
  first(subject: Subject): CompiledRule | null {
    this.#fileSome();
    let best: Filed | null = null;
    for (const ports of this.#portsOf(subject.peer)) {
      best = firstAt(ports.get(subject.port), subject, best);
      best = firstAt(ports.get(anyPort), subject, best);
    }
    if (best !== null) return best.rule;
    for (let order = this.#filed; order < this.#rules.length; order++)
      if (this.#rules[order]!.matches(subject)) return this.#rules[order]!;
    return null;
  }

  /** Of each policy the first rule that matches, in order. */
  firstOfEach(subject: Subject): CompiledRule[] {
    this.#fileSome();
    const found = new Set<Filed>();
    for (const ports of this.#portsOf(subject.peer))
      for (const port of [subject.port, anyPort])
        for (const list of listsAt(ports.get(port), subject))
          for (const filed of list) if (filed.rule.matches(subject)) found.add(filed);
    const rules = [...found].sort((a, b) => a.order - b.order).map((filed) => filed.rule);
    rules.push(...this.#rules.slice(this.#filed).filter((rule) => rule.matches(subject)));
    return rules.filter((rule, i) => rule.policy !== rules[i - 1]?.policy);
  }

  #portsOf({ principals, account, namespace }: PeerNames): readonly Ports[] {
    const found = [this.#anyone];
    if (account === null || namespace === null) return found;
    for (const principal of principals) this.#byIdentity.principal.collect(principal, found);
    this.#byIdentity.account.collect(account, found);
    this.#byIdentity.namespace.collect(namespace, found);
    return found;
  }

  #fileSome(): void {
    const end = Math.min(this.#filed + maxFiledAtOnce, this.#rules.length);
    for (; this.#filed < end; this.#filed++) {
      const filed = { rule: this.#rules[this.#filed]!, order: this.#filed };
      for (const identity of filed.rule.places.identities) this.#file(filed, this.#portsAt(identity));
    }
  }

  #portsAt(identity: IdentityDemand | null): Ports {
    return identity === null ? this.#anyone : this.#byIdentity[identity.of].at(identity.pattern, newPorts);
  }

  #file(filed: Filed, byPort: Ports): void {
    const { ports, sources } = filed.rule.places;
    for (const port of ports) {
      const place = valueAt(byPort, port, newPlace);
      for (const source of sources) add(place, source, filed);
    }
  }
}

function newPorts(): Ports {
  return new Map();
}

function newPlace(): Place {
  return { anySource: [], bySource: null };
}

function add(place: Place, source: IndexPlaces['sources'][number], filed: Filed): void {
  if (source === null) {
    place.anySource.push(filed);
    return;
  }
  place.bySource ??= new AddressTable();
  place.bySource.add(source, filed);
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
