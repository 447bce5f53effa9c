import { messageOf } from '../common/errors.js';
import { decodeKeepingUnknown, istio } from '../proto/index.js';
import type {
  AddressRange,
  AuthorizationMatch,
  AuthorizationPolicy,
  ServiceAccountMatch,
  StringMatch,
} from '../store/types.js';
import { Problems, readName, readPort, readRange } from './fields.js';

type WireMatch = istio.security.Match.$Properties;

const SCOPES = ['global', 'namespace', 'workload-selector'] as const;
const ACTIONS = ['allow', 'deny'] as const;

export interface DecodedAuthorization {
  /** Sound if `problems` is empty; else one with a `defect`, which denies wherever the policy may have been meant to apply. */
  readonly policy: AuthorizationPolicy;
  readonly problems: readonly string[];
}

/**
 * Reads and checks one `istio.security.Authorization` (sheet 3.6) that came under `name`. A condition that we do not understand
 * (an unknown field, an extension, an empty string match, a bad address) is a problem, never dropped: without it an ALLOW would
 * allow more.
 */
export function decodeAuthorization(name: string, bytes: Uint8Array): DecodedAuthorization {
  const problems = new Problems();
  try {
    const wire = decodeKeepingUnknown(istio.security.Authorization, bytes);
    const policy = readPolicy(name, wire, problems);
    return { policy: { ...policy, defect: problems.list[0] ?? null }, problems: problems.list };
  } catch (error) {
    problems.add('bytes', messageOf(error));
    return { policy: unreadable(name, problems.list[0]!), problems: problems.list };
  }
}

/** Stands for a policy of which nothing can be read: it may have been meant for anybody. */
function unreadable(key: string, defect: string): AuthorizationPolicy {
  return { key, namespace: '', scope: 'global', action: 'deny', dryRun: false, groups: [], defect };
}

function readPolicy(
  key: string,
  wire: istio.security.Authorization.$Properties,
  problems: Problems,
): AuthorizationPolicy {
  refuseUnknown(wire, 'policy', problems);
  const scope = SCOPES[wire.scope ?? 0];
  if (scope === undefined) problems.add('scope', `value ${wire.scope} is not supported`);
  const action = ACTIONS[wire.action ?? 0];
  if (action === undefined) problems.add('action', `value ${wire.action} is not supported`);
  return {
    key,
    namespace:
      scope === 'namespace' ? readName(wire.namespace, 'namespace', problems) : (wire.namespace ?? ''),
    scope: scope ?? 'global',
    action: action ?? 'deny',
    dryRun: wire.dryRun ?? false,
    groups: (wire.groups ?? []).map((group, g) => {
      refuseUnknown(group, `groups[${g}]`, problems);
      return (group.rules ?? []).map((rule, r) => {
        const field = `groups[${g}].rules[${r}]`;
        refuseUnknown(rule, field, problems);
        return (rule.matches ?? []).map((match, m) => readMatch(match, `${field}.matches[${m}]`, problems));
      });
    }),
    defect: null,
  };
}

function readMatch(wire: WireMatch, field: string, problems: Problems): AuthorizationMatch {
  refuseUnknown(wire, field, problems);
  const strings = (list: WireMatch['namespaces'], name: string) =>
    readStrings(list, `${field}.${name}`, problems);
  const ranges = (list: WireMatch['sourceIps'], name: string) =>
    readRanges(list, `${field}.${name}`, problems);
  const ports = (list: WireMatch['destinationPorts'], name: string) =>
    (list ?? []).map((port, i) => readPort(port, `${field}.${name}[${i}]`, problems, 0));
  const accounts = (list: WireMatch['serviceAccounts'], name: string) =>
    readAccounts(list, `${field}.${name}`, problems);
  return {
    namespaces: strings(wire.namespaces, 'namespaces'),
    notNamespaces: strings(wire.notNamespaces, 'not_namespaces'),
    principals: strings(wire.principals, 'principals'),
    notPrincipals: strings(wire.notPrincipals, 'not_principals'),
    sourceIps: ranges(wire.sourceIps, 'source_ips'),
    notSourceIps: ranges(wire.notSourceIps, 'not_source_ips'),
    destinationIps: ranges(wire.destinationIps, 'destination_ips'),
    notDestinationIps: ranges(wire.notDestinationIps, 'not_destination_ips'),
    destinationPorts: ports(wire.destinationPorts, 'destination_ports'),
    notDestinationPorts: ports(wire.notDestinationPorts, 'not_destination_ports'),
    serviceAccounts: accounts(wire.serviceAccounts, 'service_accounts'),
    notServiceAccounts: accounts(wire.notServiceAccounts, 'not_service_accounts'),
  };
}

function readStrings(list: WireMatch['namespaces'], field: string, problems: Problems): StringMatch[] {
  return (list ?? []).map((wire, i) => {
    refuseUnknown(wire, `${field}[${i}]`, problems);
    if (wire.exact != null) return { kind: 'exact', value: wire.exact };
    if (wire.prefix != null) return { kind: 'prefix', value: wire.prefix };
    if (wire.suffix != null) return { kind: 'suffix', value: wire.suffix };
    if (wire.presence == null) problems.add(`${field}[${i}]`, 'matches nothing');
    return { kind: 'presence' };
  });
}

function readRanges(list: WireMatch['sourceIps'], field: string, problems: Problems): AddressRange[] {
  return (list ?? []).map((wire, i) => readRange(wire.address, wire.length ?? 0, `${field}[${i}]`, problems));
}

function readAccounts(
  list: WireMatch['serviceAccounts'],
  field: string,
  problems: Problems,
): ServiceAccountMatch[] {
  return (list ?? []).map((wire, i) => {
    refuseUnknown(wire, `${field}[${i}]`, problems);
    return {
      namespace: readName(wire.namespace, `${field}[${i}].namespace`, problems),
      serviceAccount: readName(wire.serviceAccount, `${field}[${i}].serviceAccount`, problems),
    };
  });
}

function refuseUnknown(
  wire: { $unknowns?: readonly Uint8Array[]; extensions?: readonly unknown[] | null },
  field: string,
  problems: Problems,
): void {
  if ((wire.$unknowns?.length ?? 0) > 0) problems.add(field, 'has a field that this version does not know');
  if ((wire.extensions?.length ?? 0) > 0) problems.add(`${field}.extensions`, 'are not supported');
}
