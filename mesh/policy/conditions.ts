import type { AddressRange, AuthorizationMatch, ServiceAccountMatch, StringMatch } from '../store/types.js';
import { AddressRanges } from './address-ranges.js';
import type { Subject } from './subject.js';

/** One field of a match that is set. */
export interface Condition {
  readonly field: keyof AuthorizationMatch;
  holds(subject: Subject): boolean;
}

/** The fields of `match` that are set, cheapest first; none: it never matches. Throws RangeError for a bad address. */
export function conditionsOf(match: AuthorizationMatch): readonly Condition[] {
  return [
    ...either('destinationPorts', 'notDestinationPorts', match, hasPort),
    ...either('namespaces', 'notNamespaces', match, isOfNamespace),
    ...either('serviceAccounts', 'notServiceAccounts', match, isServiceAccount),
    ...either('principals', 'notPrincipals', match, isPrincipal),
    ...either('sourceIps', 'notSourceIps', match, comesFrom),
    ...either('destinationIps', 'notDestinationIps', match, goesTo),
  ];
}

type Test = (subject: Subject) => boolean;

/** A list needs one value that is true; its opposite none. So without an identity every opposite holds. */
function either<Field extends keyof AuthorizationMatch, Opposite extends keyof AuthorizationMatch>(
  field: Field,
  opposite: Opposite,
  match: AuthorizationMatch,
  testOf: (values: AuthorizationMatch[Field] & AuthorizationMatch[Opposite]) => Test,
): Condition[] {
  type Values = AuthorizationMatch[Field] & AuthorizationMatch[Opposite];
  const conditions: Condition[] = [];
  if (match[field].length > 0) conditions.push({ field, holds: testOf(match[field] as Values) });
  if (match[opposite].length > 0) {
    const test = testOf(match[opposite] as Values);
    conditions.push({ field: opposite, holds: (subject) => !test(subject) });
  }
  return conditions;
}

function hasPort(ports: readonly number[]): Test {
  return (subject) => ports.includes(subject.port);
}

function isOfNamespace(namespaces: readonly StringMatch[]): Test {
  const isOne = anyOf(namespaces);
  return ({ peer }) => peer.namespace !== null && isOne(peer.namespace);
}

/** Whatever the trust domain (sheet 3.6). */
function isServiceAccount(accounts: readonly ServiceAccountMatch[]): Test {
  return ({ peer }) =>
    accounts.some(
      ({ namespace, serviceAccount }) =>
        namespace === peer.namespace && serviceAccount === peer.serviceAccount,
    );
}

function isPrincipal(principals: readonly StringMatch[]): Test {
  const isOne = anyOf(principals);
  return ({ peer }) => peer.principals.some(isOne);
}

function comesFrom(ranges: readonly AddressRange[]): Test {
  const networks = new AddressRanges(ranges);
  return (subject) => networks.contain(subject.source);
}

function goesTo(ranges: readonly AddressRange[]): Test {
  const networks = new AddressRanges(ranges);
  return (subject) => networks.contain(subject.destination);
}

function anyOf(matches: readonly StringMatch[]): (text: string) => boolean {
  return (text) => matches.some((match) => isMatch(match, text));
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
