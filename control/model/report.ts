import type { ObjectKey } from './types.js';

/** A part of a sound object that is accepted but not in force as written. */
export interface Limitation {
  /** `spec.trafficPolicy.tls`; '' where it is the whole object. */
  readonly field: string;
  /** Why: 'is L7 only'. */
  readonly reason: string;
  /** What happens instead: 'ignored without a waypoint'. */
  readonly effect: string;
}

/** A limitation, with whose it is. The one shape in which everything accepted but not enforced reaches people. */
export interface Report extends Limitation {
  /** `DestinationRule/shop/cart`. */
  readonly object: ObjectKey;
}

/** What decides which of two objects that claim the same comes first. */
interface Aged {
  /** metadata.creationTimestamp; '' where there is none. */
  readonly createdAt: string;
  readonly namespace: string;
  readonly name: string;
}

/** Oldest first; those without a date last; then by namespace and name, so that there is always one order. */
export function compareAge(a: Aged, b: Aged): number {
  const [first, second] = [a, b].map(({ createdAt }) =>
    createdAt === '' ? Number.POSITIVE_INFINITY : Date.parse(createdAt),
  ) as [number, number];
  if (first !== second) return first < second ? -1 : 1;
  const [left, right] = [`${a.namespace}/${a.name}`, `${b.namespace}/${b.name}`];
  return left < right ? -1 : left > right ? 1 : 0;
}
