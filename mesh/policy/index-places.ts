import type { AddressRange, AuthorizationMatch, StringMatch } from '../store/types.js';
import { anyIdentityKey, indexKeyOf } from './subject.js';

/** For rules that ask for no port. */
export const anyPort = -1;

/** Where a `RuleIndex` files a rule: at every combination of these. */
export interface IndexPlaces {
  readonly identityKeys: readonly string[];
  readonly ports: readonly number[];
  /** Null: any. */
  readonly sources: readonly (AddressRange | null)[];
}

/** A rule with more combinations is not filed by source, then not by port, then not by identity. */
const maxPlaces = 64;

const anyIdentity = [anyIdentityKey];
const anyPorts = [anyPort];
const anySource = [null];

/**
 * Places such that every connection that the rule matches has one of them: what it demands of the peer's identity, the port and the source address, as
 * far as each is a list of values. Patterns count by the namespace or account that they pin down. Other demands are not indexed, but compared.
 */
export function placesOf(clauses: readonly (readonly AuthorizationMatch[])[]): IndexPlaces {
  let identityKeys = demandOf(clauses, identityKeysOf) ?? anyIdentity;
  if (identityKeys.length > maxPlaces) identityKeys = anyIdentity;
  let ports = demandOf(clauses, portsOf) ?? anyPorts;
  if (identityKeys.length * ports.length > maxPlaces) ports = anyPorts;
  const sources = demandOf(clauses, sourcesOf) ?? anySource;
  const isTooMany = identityKeys.length * ports.length * sources.length > maxPlaces;
  return { identityKeys, ports, sources: isTooMany ? anySource : sources };
}

/** The shortest list of values that one of the clauses demands; null: none does. */
function demandOf<Value>(
  clauses: readonly (readonly AuthorizationMatch[])[],
  valuesOf: (match: AuthorizationMatch) => readonly Value[] | null,
): readonly Value[] | null {
  let shortest: readonly Value[] | null = null;
  for (const clause of clauses) {
    const values = demandOfClause(clause, valuesOf);
    if (values !== null && (shortest === null || values.length < shortest.length)) shortest = values;
  }
  return shortest;
}

/** What one or another of its matches demands; null: one demands nothing. */
function demandOfClause<Value>(
  clause: readonly AuthorizationMatch[],
  valuesOf: (match: AuthorizationMatch) => readonly Value[] | null,
): readonly Value[] | null {
  if (clause.length === 0) return null;
  const values = new Set<Value>();
  for (const match of clause) {
    const demanded = valuesOf(match);
    if (demanded === null) return null;
    for (const value of demanded) values.add(value);
  }
  return [...values];
}

function portsOf({ destinationPorts }: AuthorizationMatch): readonly number[] | null {
  return destinationPorts.length > 0 ? destinationPorts : null;
}

function sourcesOf({ sourceIps }: AuthorizationMatch): readonly AddressRange[] | null {
  return sourceIps.length > 0 ? sourceIps : null;
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
  if (values.length === 0) return null;
  const keys = values.map(keyOf);
  return keys.includes(null) ? null : (keys as string[]);
}

function namespaceKeyOf(match: StringMatch): string | null {
  return match.kind === 'exact' ? indexKeyOf.namespace(match.value) : null;
}

/** `<td>/ns/<ns>/…*` is of that namespace, `*…/ns/<ns>/sa/<sa>` of that account: parts of an identity hold no slash. */
function principalKeyOf(match: StringMatch): string | null {
  switch (match.kind) {
    case 'exact':
      return indexKeyOf.principal(match.value);
    case 'prefix': {
      const namespace = /^[^/]+\/ns\/([^/]+)\//.exec(match.value)?.[1];
      return namespace === undefined ? null : indexKeyOf.namespace(namespace);
    }
    case 'suffix': {
      const [, namespace, account] = /(?:\/ns\/([^/]+))?\/sa\/([^/]+)$/.exec(match.value) ?? [];
      if (account === undefined) return null;
      return namespace === undefined
        ? indexKeyOf.accountName(account)
        : indexKeyOf.serviceAccount(namespace, account);
    }
    case 'presence':
      return null;
  }
}
