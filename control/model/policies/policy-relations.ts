import { isDeepStrictEqual } from 'node:util';
import { keyOf } from '../../../mesh/manifests/index.js';
import { Multimap } from '../multimap.js';
import { type Relations, type Selectable, selects } from '../relations.js';
import type { Touched } from '../touched.js';
import type { MeshObject, Pod } from '../types.js';
import type { AuthorizationPolicy, PeerAuthentication, PolicyTarget } from './types.js';

export type Policy = AuthorizationPolicy | PeerAuthentication;

export interface PolicyRelationsOptions {
  readonly rootNamespace: string;
}

/** Key part of policies of the root namespace that select by label: they take workloads of every namespace. No namespace has this name. */
const EVERYWHERE = '*';

/** Which policies may concern a workload, and what a change of one touches. */
export class PolicyRelations {
  readonly #rootNamespace: string;
  readonly #relations: Relations;
  /** By namespace and one label of the selector. */
  readonly #bySelector: Multimap<Policy>;
  readonly #peersOfNamespace: Multimap<PeerAuthentication>;
  readonly #byTarget: Multimap<AuthorizationPolicy>;
  /** With neither selector nor targets, by namespace. */
  readonly #ofWholeNamespace: Multimap<Policy>;
  readonly #peers: Set<PeerAuthentication>;
  readonly #withSelector: Set<Policy>;

  constructor(options: PolicyRelationsOptions, relations: Relations) {
    this.#rootNamespace = options.rootNamespace;
    this.#relations = relations;
    this.#bySelector = new Multimap();
    this.#peersOfNamespace = new Multimap();
    this.#byTarget = new Multimap();
    this.#ofWholeNamespace = new Multimap();
    this.#peers = new Set();
    this.#withSelector = new Set();
  }

  /** Those whose selector takes it, of its namespace and of the root namespace. */
  selecting({ namespace, labels }: Pick<Selectable, 'namespace' | 'labels'>): readonly Policy[] {
    const found: Policy[] = [];
    for (const [label, value] of Object.entries(labels))
      for (const place of [namespace, EVERYWHERE])
        for (const policy of this.#bySelector.get(`${place}/${label}=${value}`))
          if (selects(policy.selector, labels)) found.push(policy);
    return found;
  }

  /** PeerAuthentications of the whole namespace: those without a selector. */
  peersOfNamespace(namespace: string): readonly PeerAuthentication[] {
    return [...this.#peersOfNamespace.get(namespace)].filter(({ selector }) => selector === null);
  }

  boundTo(target: PolicyTarget, namespace: string): ReadonlySet<AuthorizationPolicy> {
    return this.#byTarget.get(targetKey(target, namespace));
  }

  /** Workloads that it takes by label or, but for those of the whole mesh, by where they are. */
  takenBy(policy: Policy): readonly Selectable[] {
    const { namespace, selector } = policy;
    if (selector !== null) return this.#selectedBy(policy);
    if (namespace === this.#rootNamespace) return [];
    const all = [...this.#relations.ofNamespace(namespace)];
    return all.filter((one) => one.kind === 'Pod' || one.kind === 'WorkloadEntry');
  }

  /** Those whose selector takes nothing at present. One of the root namespace looks at all that there is. */
  get idle(): readonly Policy[] {
    return [...this.#withSelector].filter(({ namespace, selector }) => {
      const place = namespace === this.#rootNamespace ? null : namespace;
      return !this.#relations.hasLabels(place, selector!);
    });
  }

  /** Marks every policy of which `takenBy`, or a service that it is bound to, tells this pod. */
  touchTaking(pod: Pod, touched: Touched): void {
    touched.add(this.selecting(pod));
    touched.add(this.#ofWholeNamespace.get(pod.namespace));
    for (const one of this.#relations.selecting(pod)) touched.add(this.boundTo(one, one.namespace));
  }

  add(object: MeshObject): void {
    if (!isPolicy(object)) return;
    if (object.kind === 'PeerAuthentication') this.#peers.add(object);
    if (object.selector !== null) this.#withSelector.add(object);
    this.#forEachIndex(object, (index, key, policy) => index.add(key, policy));
  }

  delete(object: MeshObject): void {
    if (!isPolicy(object)) return;
    if (object.kind === 'PeerAuthentication') this.#peers.delete(object);
    this.#withSelector.delete(object);
    this.#forEachIndex(object, (index, key, policy) => index.delete(key, policy));
  }

  /** Marks what depends on this object; `other` is what it replaces or is replaced by. */
  touch(object: MeshObject, other: MeshObject | undefined, touched: Touched): void {
    if (object.kind === 'Service' || object.kind === 'ServiceEntry')
      touched.add(this.boundTo(object, object.namespace));
    if (object.kind === 'AuthorizationPolicy' && !hasSameReach(object, other)) {
      touched.add(this.#selectedBy(object));
      for (const one of this.#relations.ofNamespace(object.namespace))
        if (object.targets.some(({ kind, name }) => kind === one.kind && name === one.name))
          this.#relations.touch(one, touched);
    }
    if (object.kind !== 'PeerAuthentication') return;
    touched.add(this.#selectedBy(object));
    // One without a selector is what others inherit, and makes younger ones void.
    if (object.selector === null)
      touched.add(
        object.namespace === this.#rootNamespace ? this.#peers : this.#peersOfNamespace.get(object.namespace),
      );
  }

  /** Workloads that the policy takes by label, or (a PeerAuthentication) by where they are. */
  #selectedBy(policy: Policy): readonly Selectable[] {
    const { namespace, selector } = policy;
    const isMeshWide = namespace === this.#rootNamespace;
    if (selector !== null && !isMeshWide) return this.#relations.withLabels(namespace, selector);
    if (policy.kind === 'AuthorizationPolicy' && selector === null) return [];
    const all = isMeshWide ? this.#relations.all : this.#relations.ofNamespace(namespace);
    const workloads = [...all].filter((one) => one.kind === 'Pod' || one.kind === 'WorkloadEntry');
    return selector === null ? workloads : workloads.filter(({ labels }) => selects(selector, labels));
  }

  #forEachIndex(
    policy: Policy,
    visit: <Value>(index: Multimap<Value>, key: string, value: Value) => void,
  ): void {
    const { namespace, selector } = policy;
    if (policy.kind === 'PeerAuthentication') visit(this.#peersOfNamespace, namespace, policy);
    if (selector !== null) {
      const [label, value] = Object.entries(selector)[0]!;
      const place = namespace === this.#rootNamespace ? EVERYWHERE : namespace;
      visit<Policy>(this.#bySelector, `${place}/${label}=${value}`, policy);
    }
    const isBound = policy.kind === 'AuthorizationPolicy' && policy.targets.length > 0;
    if (selector === null && !isBound) visit<Policy>(this.#ofWholeNamespace, namespace, policy);
    if (policy.kind === 'AuthorizationPolicy')
      for (const target of policy.targets) visit(this.#byTarget, targetKey(target, namespace), policy);
  }
}

function isPolicy(object: MeshObject): object is Policy {
  return object.kind === 'AuthorizationPolicy' || object.kind === 'PeerAuthentication';
}

/** Whether the same workloads name it: then a change of its rules is its own affair. */
function hasSameReach(policy: AuthorizationPolicy, other: MeshObject | undefined): boolean {
  return (
    other?.kind === 'AuthorizationPolicy' &&
    (policy.action === 'AUDIT') === (other.action === 'AUDIT') &&
    isDeepStrictEqual([policy.selector, policy.targets], [other.selector, other.targets])
  );
}

function targetKey({ kind, name }: PolicyTarget, namespace: string): string {
  return keyOf(kind, namespace, name);
}
