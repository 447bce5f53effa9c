import type { AddressRange, AuthorizationMatch, ServiceAccountMatch, StringMatch } from '../store/types.js';
import type { Subject } from './subject.js';

/** Fields of a match, cheapest first. */
export const matchFields = [
  'destinationPorts',
  'notDestinationPorts',
  'namespaces',
  'notNamespaces',
  'serviceAccounts',
  'notServiceAccounts',
  'principals',
  'notPrincipals',
  'sourceIps',
  'notSourceIps',
  'destinationIps',
  'notDestinationIps',
] as const satisfies readonly (keyof AuthorizationMatch)[];

export const emptyMatch: AuthorizationMatch = {
  destinationPorts: [],
  notDestinationPorts: [],
  namespaces: [],
  notNamespaces: [],
  serviceAccounts: [],
  notServiceAccounts: [],
  principals: [],
  notPrincipals: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
};

/** One of its alternatives holds, if it has any. */
export function clauseHolds(clause: readonly AuthorizationMatch[], subject: Subject): boolean {
  if (clause.length === 0) return true;
  for (const match of clause) if (matchHolds(match, subject)) return true;
  return false;
}

/** All fields that are set hold; with none set at all it never does. */
export function matchHolds(match: AuthorizationMatch, subject: Subject): boolean {
  return (
    pairHolds(match.destinationPorts, match.notDestinationPorts, subject, hasPort) &&
    pairHolds(match.namespaces, match.notNamespaces, subject, isOfNamespace) &&
    pairHolds(match.serviceAccounts, match.notServiceAccounts, subject, isServiceAccount) &&
    pairHolds(match.principals, match.notPrincipals, subject, isPrincipal) &&
    pairHolds(match.sourceIps, match.notSourceIps, subject, comesFrom) &&
    pairHolds(match.destinationIps, match.notDestinationIps, subject, goesTo) &&
    matchFields.some((field) => match[field].length > 0)
  );
}

/** A list needs one value that is true; its opposite none. So without an identity every opposite holds. */
function pairHolds<Value>(
  values: readonly Value[],
  opposite: readonly Value[],
  subject: Subject,
  isTrue: (values: readonly Value[], subject: Subject) => boolean,
): boolean {
  if (values.length > 0 && !isTrue(values, subject)) return false;
  return opposite.length === 0 || !isTrue(opposite, subject);
}

function hasPort(ports: readonly number[], subject: Subject): boolean {
  return ports.includes(subject.port);
}

function isOfNamespace(namespaces: readonly StringMatch[], { peer }: Subject): boolean {
  return peer.namespace !== null && isOneOf(namespaces, peer.namespace);
}

/** Whatever the trust domain (sheet 3.6). */
function isServiceAccount(accounts: readonly ServiceAccountMatch[], { peer }: Subject): boolean {
  for (const { namespace, serviceAccount } of accounts)
    if (namespace === peer.namespace && serviceAccount === peer.serviceAccount) return true;
  return false;
}

function isPrincipal(principals: readonly StringMatch[], { peer }: Subject): boolean {
  for (const principal of peer.principals) if (isOneOf(principals, principal)) return true;
  return false;
}

function comesFrom(ranges: readonly AddressRange[], subject: Subject): boolean {
  return subject.networks.of(ranges).has(subject.source);
}

function goesTo(ranges: readonly AddressRange[], subject: Subject): boolean {
  return subject.networks.of(ranges).has(subject.destination);
}

function isOneOf(matches: readonly StringMatch[], text: string): boolean {
  for (const match of matches) if (isMatch(match, text)) return true;
  return false;
}

function isMatch(match: StringMatch, text: string): boolean {
  switch (match.kind) {
    case 'exact':
      return text === match.value;
    case 'prefix':
      return text.startsWith(match.value);
    case 'suffix':
      return text.endsWith(match.value);
    case 'presence':
      return text !== '';
  }
}
