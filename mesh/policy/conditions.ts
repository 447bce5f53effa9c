import type { AddressRange, AuthorizationMatch, ServiceAccountMatch, StringMatch } from '../store/types.js';
import { AddressTable } from './address-table.js';
import type { Subject } from './subject.js';

/** One field of a match that is set. */
export interface Condition {
  readonly field: keyof AuthorizationMatch;
  holds(subject: Subject): boolean;
}

/** The fields of `match` that are set, cheapest first; none: it never matches. Throws RangeError for a bad address. */
export function conditionsOf(match: AuthorizationMatch): readonly Condition[] {
  const conditions: Condition[] = [];
  add(conditions, 'destinationPorts', 'notDestinationPorts', match, hasPort);
  add(conditions, 'namespaces', 'notNamespaces', match, isOfNamespace);
  add(conditions, 'serviceAccounts', 'notServiceAccounts', match, isServiceAccount);
  add(conditions, 'principals', 'notPrincipals', match, isPrincipal);
  add(conditions, 'sourceIps', 'notSourceIps', match, comesFrom);
  add(conditions, 'destinationIps', 'notDestinationIps', match, goesTo);
  return conditions;
}

type Test = (subject: Subject) => boolean;

/** A list needs one value that is true; its opposite none. So without an identity every opposite holds. */
function add<Field extends keyof AuthorizationMatch, Opposite extends keyof AuthorizationMatch>(
  conditions: Condition[],
  field: Field,
  opposite: Opposite,
  match: AuthorizationMatch,
  testOf: (values: AuthorizationMatch[Field] & AuthorizationMatch[Opposite]) => Test,
): void {
  type Values = AuthorizationMatch[Field] & AuthorizationMatch[Opposite];
  if (match[field].length > 0) conditions.push({ field, holds: testOf(match[field] as Values) });
  if (match[opposite].length > 0) {
    const test = testOf(match[opposite] as Values);
    conditions.push({ field: opposite, holds: (subject) => !test(subject) });
  }
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
  const networks = tableOf(ranges);
  return (subject) => networks.has(subject.source);
}

function goesTo(ranges: readonly AddressRange[]): Test {
  const networks = tableOf(ranges);
  return (subject) => networks.has(subject.destination);
}

function tableOf(ranges: readonly AddressRange[]): AddressTable<null> {
  const table = new AddressTable<null>();
  for (const range of ranges) table.add(range, null);
  return table;
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
