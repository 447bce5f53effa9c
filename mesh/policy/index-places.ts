import type { AddressRange, AuthorizationMatch, ServiceAccountMatch, StringMatch } from '../store/types.js';
import type { TextPattern } from './pattern-table.js';
import { accountText } from './subject.js';

/** For rules that ask for no port. */
export const anyPort = -1;

/** One way to be whom a rule asks for. */
export interface IdentityDemand {
  /** What the pattern is of; an account is `<ns>/<sa>`. */
  readonly of: 'principal' | 'account' | 'namespace';
  readonly pattern: TextPattern;
}

/** Where a `RuleIndex` files a rule: at every combination of these. Null: any. */
export interface IndexPlaces {
  readonly identities: readonly (IdentityDemand | null)[];
  readonly ports: readonly number[];
  readonly sources: readonly (AddressRange | null)[];
}

/** A rule with more combinations is not filed by source, then not by port, then not by identity. */
const maxPlaces = 64;

const anyIdentity = [null];
const anyPorts = [anyPort];
const anySource = [null];

/**
 * Places such that every connection that the rule matches has one of them: what it demands of the peer's identity, the port and the source address, as
 * far as each is a list of values or patterns. Other demands are not indexed, but compared.
 */
export function placesOf(clauses: readonly (readonly AuthorizationMatch[])[]): IndexPlaces {
  let identities: IndexPlaces['identities'] = demandOf(clauses, identitiesOf) ?? anyIdentity;
  if (identities.length > maxPlaces) identities = anyIdentity;
  let ports = demandOf(clauses, portsOf) ?? anyPorts;
  if (identities.length * ports.length > maxPlaces) ports = anyPorts;
  const sources = demandOf(clauses, sourcesOf) ?? anySource;
  const isTooMany = identities.length * ports.length * sources.length > maxPlaces;
  return { identities, ports, sources: isTooMany ? anySource : sources };
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
  if (clause.length === 1) return valuesOf(clause[0]!);
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

function identitiesOf(match: AuthorizationMatch): readonly IdentityDemand[] | null {
  const { principals, serviceAccounts, namespaces } = match;
  if (serviceAccounts.length > 0) return serviceAccounts.map(demandOfAccount);
  return patternsOf(principals, 'principal') ?? patternsOf(namespaces, 'namespace');
}

function demandOfAccount({ namespace, serviceAccount }: ServiceAccountMatch): IdentityDemand {
  const value = accountText(namespace, serviceAccount);
  return { of: 'account', pattern: { kind: 'exact', value } };
}

/** Null: one of them is true of everybody, or there are none. */
function patternsOf(
  matches: readonly StringMatch[],
  of: 'principal' | 'namespace',
): readonly IdentityDemand[] | null {
  if (matches.length === 0) return null;
  const demands: IdentityDemand[] = [];
  for (const match of matches) {
    if (match.kind === 'presence' || match.value === '') return null;
    demands.push({ of, pattern: match });
  }
  return demands;
}
