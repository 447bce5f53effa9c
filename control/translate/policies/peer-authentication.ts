import { istio } from '../../../mesh/proto/index.js';
import {
  compareAge,
  type Limitation,
  type Model,
  type MtlsMode,
  type PeerAuthentication,
} from '../../model/index.js';
import type { Resource, TranslateOptions } from '../types.js';
import type { TranslatedPolicy } from './authorization.js';
import { gapsOf } from './gaps.js';

const { Action, Scope } = istio.security;

type Authorization = istio.security.Authorization.$Properties;

/** The policy that STRICT workloads name: it denies whoever shows no identity. Always served, so that no workload ever waits for it. */
export function strictPolicy({ rootNamespace }: TranslateOptions): Resource<Authorization> {
  return denyStrangers(`${rootNamespace}/istio_converted_static_strict`, {});
}

/** What of mutual TLS is asked of workloads that no PeerAuthentication selects: mesh below namespace, the oldest of each, default PERMISSIVE. */
export function namespaceMode(model: Model, namespace: string): MtlsMode {
  const own = oldest(model.policies.peersOfNamespace(namespace))?.mode ?? 'UNSET';
  if (own !== 'UNSET') return own;
  const mesh = oldest(model.policies.peersOfNamespace(model.options.rootNamespace))?.mode ?? 'UNSET';
  return mesh === 'UNSET' ? 'PERMISSIVE' : mesh;
}

/**
 * Resource names of the policies that enforce a workload's mutual TLS (mesh-apis.md 2.6): the oldest PeerAuthentication that selects it, else
 * its namespace's mode. What is STRICT in one of the root namespace that selects it is enforced besides, and so is what could not be read: how old
 * it is, or whom it means, nobody knows.
 */
export function strictPoliciesOf(
  model: Model,
  namespace: string,
  selecting: readonly PeerAuthentication[],
  options: TranslateOptions,
): readonly string[] {
  const inherited = namespaceMode(model, namespace);
  const ofMesh = selecting.filter((policy) => policy.namespace === model.options.rootNamespace);
  const own = oldest(selecting.filter((policy) => policy.namespace !== model.options.rootNamespace));
  const names = ofMesh.map((policy) => enforcing(policy, 'PERMISSIVE', options));
  if (own !== null) names.push(enforcing(own, inherited, options));
  else if (inherited === 'STRICT') names.push(strictPolicy(options).name);
  const ofPlaces = [namespace, model.options.rootNamespace].flatMap((place) =>
    model.policies.peersOfNamespace(place),
  );
  if ([...selecting, ...ofPlaces].some(({ isUnreadable }) => isUnreadable))
    names.push(strictPolicy(options).name);
  return names.filter((name) => name !== null);
}

/** Which policy enforces this one's modes; null: none is needed. */
function enforcing(
  policy: PeerAuthentication,
  inherited: MtlsMode,
  options: TranslateOptions,
): string | null {
  const { isStrict, exceptions } = portsOf(policy, inherited);
  if (exceptions.length > 0) return convertedName(policy.namespace, policy.name);
  return isStrict ? strictPolicy(options).name : null;
}

/** The policy of a PeerAuthentication whose ports differ, with what of it has no effect. */
export function translatePeerAuthentication(policy: PeerAuthentication, model: Model): TranslatedPolicy {
  const isOfMesh = policy.namespace === model.options.rootNamespace;
  const { isStrict, exceptions } = portsOf(
    policy,
    isOfMesh ? 'PERMISSIVE' : namespaceMode(model, policy.namespace),
  );
  const ports = isStrict ? { notDestinationPorts: exceptions } : { destinationPorts: exceptions };
  return {
    resource:
      exceptions.length === 0 ? null : denyStrangers(convertedName(policy.namespace, policy.name), ports),
    limitations: [
      ...limitationsOf(policy, model),
      ...(isStrict || exceptions.length > 0 ? gapsOf(policy, model) : []),
    ],
  };
}

/** Whether STRICT is the rule, and the ports for which it is the other way round. */
function portsOf({ mode, ports }: PeerAuthentication, inherited: MtlsMode) {
  const isStrict = (mode === 'UNSET' ? inherited : mode) === 'STRICT';
  const exceptions = ports.filter((port) => port.mode !== 'UNSET' && (port.mode === 'STRICT') !== isStrict);
  return { isStrict, exceptions: exceptions.map(({ port }) => port) };
}

function limitationsOf(policy: PeerAuthentication, model: Model): Limitation[] {
  const limitations: Limitation[] = [];
  const { namespace, selector } = policy;
  if (policy.isUnreadable)
    limitations.push({
      field: '',
      reason: 'cannot be read',
      effect: 'STRICT, wherever it may have been meant to apply',
    });
  const first = selector === null ? oldest(model.policies.peersOfNamespace(namespace)) : null;
  if (first !== null && first !== policy && !policy.isUnreadable)
    limitations.push({
      field: '',
      reason: `PeerAuthentication ${first.namespace}/${first.name} is older`,
      effect: 'has no effect',
    });
  if (selector !== null && namespace === model.options.rootNamespace)
    limitations.push({
      field: 'spec.selector',
      reason: 'is in the root namespace',
      effect: 'STRICT is enforced wherever it selects, other modes have no effect',
    });
  const fields = [
    { field: 'spec.mtls.mode', mode: policy.mode },
    ...policy.ports.map(({ port, mode }) => ({ field: `spec.portLevelMtls["${port}"].mode`, mode })),
  ];
  for (const { field, mode } of fields)
    if (mode === 'DISABLE')
      limitations.push({ field, reason: 'peers of the mesh always use mutual TLS', effect: 'as PERMISSIVE' });
  return limitations;
}

function oldest(policies: readonly PeerAuthentication[]): PeerAuthentication | null {
  return policies.filter(({ isUnreadable }) => !isUnreadable).sort(compareAge)[0] ?? null;
}

/** Resource name of the policy made of a PeerAuthentication, as istiod names it (hbone-and-wds.md 3.6). No object's name has an underscore. */
export function convertedName(namespace: string, name: string): string {
  return `${namespace}/converted_peer_authentication_${name}`;
}

function denyStrangers(
  resourceName: string,
  ports: Pick<istio.security.Match.$Properties, 'destinationPorts' | 'notDestinationPorts'>,
): Resource<Authorization> {
  const match = { notPrincipals: [{ presence: {} }], ...ports };
  const [namespace, name] = resourceName.split('/') as [string, string];
  return {
    name: resourceName,
    aliases: [],
    follows: [],
    message: {
      name,
      namespace,
      scope: Scope.WORKLOAD_SELECTOR,
      action: Action.DENY,
      groups: [{ rules: [{ matches: [match] }] }],
    },
  };
}
