import { keyOf } from '../../../mesh/manifests/index.js';
import type { istio } from '../../../mesh/proto/index.js';
import type {
  AuthorizationPolicy,
  Limitation,
  Model,
  ObjectKey,
  PolicyTarget,
  Selectable,
  Selecting,
} from '../../model/index.js';
import type { Resource, TranslateOptions } from '../types.js';
import { type TranslatedPolicy, translateAuthorization } from './authorization.js';
import { gapsOf } from './gaps.js';
import { convertedName, strictPoliciesOf, translatePeerAuthentication } from './peer-authentication.js';

/** What a change of the model means for `istio.security.Authorization`. */
export interface AuthorizationUpdates {
  /** By resource name; null where the resource is gone. */
  readonly resources: ReadonlyMap<string, Resource<istio.security.Authorization.$Properties> | null>;
  /** Of every policy that changed: what of it is not in force as written; none where it is gone. */
  readonly limitations: ReadonlyMap<ObjectKey, readonly Limitation[]>;
}

/** Makes the touched policies anew. Reads the model, changes nothing. */
export function translateAuthorizations(
  model: Model,
  policies: ReadonlySet<ObjectKey>,
  options: TranslateOptions,
): AuthorizationUpdates {
  const resources = new Map<string, Resource<istio.security.Authorization.$Properties> | null>();
  const limitations = new Map<ObjectKey, readonly Limitation[]>();
  for (const key of policies) {
    const translated = translate(model, key, options);
    resources.set(resourceNameOf(key), translated.resource);
    limitations.set(key, translated.limitations);
  }
  return { resources, limitations };
}

function translate(model: Model, key: ObjectKey, options: TranslateOptions): TranslatedPolicy {
  const peer = model.peerAuthentication(key);
  if (peer !== undefined) return translatePeerAuthentication(peer, model);
  const policy = model.authorizationPolicy(key);
  if (policy === undefined) return { resource: null, limitations: [] };
  const isEnforced = policy.action !== 'AUDIT' && !policy.dryRun;
  const gaps = isEnforced ? gapsOf(policy, model) : [];
  return translateAuthorization({ policy, boundTargets: boundTargetsOf(model, policy), gaps }, options);
}

function boundTargetsOf(model: Model, policy: AuthorizationPolicy): readonly PolicyTarget[] {
  return policy.targets.filter(({ kind, name }) => {
    const key = keyOf(kind, policy.namespace, name);
    return (model.service(key) ?? model.serviceEntry(key)) !== undefined;
  });
}

function resourceNameOf(key: ObjectKey): string {
  const [kind, namespace = '', name = ''] = key.split('/');
  return kind === 'PeerAuthentication' ? convertedName(namespace, name) : `${namespace}/${name}`;
}

/**
 * Resource names of the policies that a workload names: those that select it, those bound to a service of it (no service has a waypoint yet
 * that would enforce them), and those that enforce its mutual TLS. Policies of whole namespaces are not named (hbone-and-wds.md 3.6).
 */
export function policyNamesOf(
  workload: Selectable,
  model: Model,
  options: TranslateOptions,
): readonly string[] {
  const { policies } = model;
  const selecting = policies.selecting(workload);
  const bound = servicesOf(workload, model).flatMap((one) => [...policies.boundTo(one, one.namespace)]);
  const names = [...selecting, ...bound].flatMap((policy) =>
    policy.kind === 'AuthorizationPolicy' && policy.action !== 'AUDIT'
      ? [`${policy.namespace}/${policy.name}`]
      : [],
  );
  const peers = selecting.filter((policy) => policy.kind === 'PeerAuthentication');
  names.push(...strictPoliciesOf(model, workload.namespace, peers, options));
  return [...new Set(names)].sort();
}

/** Those whose selector takes it, and those that list a pod's address. */
function servicesOf(workload: Selectable, model: Model): readonly Selecting[] {
  const { relations } = model;
  const selecting = relations.selecting(workload);
  if (workload.kind !== 'Pod' || workload.hostNetwork) return selecting;
  const listing = workload.addresses
    .flatMap((address) => relations.listingAddress(address))
    .map((one) =>
      one.kind === 'ServiceEntry' ? one : model.service(keyOf('Service', one.namespace, one.serviceName)),
    );
  return [...selecting, ...listing.filter((one) => one !== undefined)];
}
