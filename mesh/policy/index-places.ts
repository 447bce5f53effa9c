import type { AuthorizationMatch, StringMatch } from '../store/types.js';
import { anyIdentityKey, indexKeyOf } from './subject.js';

/** For rules that ask for no port. */
export const anyPort = -1;

/** A place in a `RuleIndex`: a connection is compared with the rules at its own places only. */
export interface IndexPlace {
  readonly identityKey: string;
  readonly port: number;
}

/** A rule with more than so many places is filed under identities alone, or under none. */
const maxPlaces = 64;

/**
 * Places such that every connection that the rule matches has one of them: what a rule demands of the peer's identity and of the port, as far as each
 * is a list of values. Patterns count by the namespace or account that they pin down. Other demands are not indexed, but compared.
 */
export function placesOf(clauses: readonly (readonly AuthorizationMatch[])[]): IndexPlace[] {
  const identityKeys = demandOf(clauses, identityKeysOf) ?? [anyIdentityKey];
  const ports = demandOf(clauses, portsOf) ?? [anyPort];
  const keys = identityKeys.length > maxPlaces ? [anyIdentityKey] : identityKeys;
  const kept = keys.length * ports.length > maxPlaces ? [anyPort] : ports;
  return keys.flatMap((identityKey) => kept.map((port) => ({ identityKey, port })));
}

/** The shortest list of values that one of the clauses demands; null: none does. */
function demandOf<Value>(
  clauses: readonly (readonly AuthorizationMatch[])[],
  valuesOf: (match: AuthorizationMatch) => readonly Value[] | null,
): Value[] | null {
  let shortest: Value[] | null = null;
  for (const clause of clauses) {
    const demands = clause.map(valuesOf);
    if (clause.length === 0 || demands.includes(null)) continue;
    const values = [...new Set(demands.flatMap((demand) => demand!))];
    if (shortest === null || values.length < shortest.length) shortest = values;
  }
  return shortest;
}

function portsOf({ destinationPorts }: AuthorizationMatch): readonly number[] | null {
  return destinationPorts.length > 0 ? destinationPorts : null;
}

function identityKeysOf(match: AuthorizationMatch): readonly string[] | null {
  const { principals, serviceAccounts, namespaces } = match;
  return (
    allKeys(principals, principalKeyOf) ??
    allKeys(serviceAccounts, (one) => indexKeyOf.serviceAccount(one.namespace, one.serviceAccount)) ??
    allKeys(namespaces, namespaceKeyOf)
  );
}

/** Null: some value has no key, or there are no values. */
function allKeys<Value>(
  values: readonly Value[],
  keyOf: (value: Value) => string | null,
): readonly string[] | null {
  const keys = values.map(keyOf);
  return keys.length > 0 && !keys.includes(null) ? (keys as string[]) : null;
}

function namespaceKeyOf(match: StringMatch): string | null {
  return match.kind === 'exact' ? indexKeyOf.namespace(match.value) : null;
}

/** `<td>/ns/<ns>/sa/…*` is of that namespace, and `*…/ns/<ns>/sa/<sa>` of that account: parts of an identity hold no slash. */
function principalKeyOf(match: StringMatch): string | null {
  switch (match.kind) {
    case 'exact':
      return indexKeyOf.principal(match.value);
    case 'prefix': {
      const namespace = /^[^/]+\/ns\/([^/]+)\//.exec(match.value)?.[1];
      return namespace === undefined ? null : indexKeyOf.namespace(namespace);
    }
    case 'suffix': {
      const parts = /\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(match.value);
      return parts === null ? null : indexKeyOf.serviceAccount(parts[1]!, parts[2]!);
    }
    case 'presence':
      return null;
  }
}
