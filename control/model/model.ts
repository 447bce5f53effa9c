import { isDeepStrictEqual } from 'node:util';
import { keyOf, type Labels, type SourceBatch } from '../../mesh/manifests/index.js';
import { Multimap } from './multimap.js';
import type { MeshObject, Namespace, Node, ObjectKey, Pod, Service } from './types.js';

/** Pods and services whose resources must be made anew; some may be gone. */
export interface ModelChange {
  readonly pods: ReadonlySet<ObjectKey>;
  readonly services: ReadonlySet<ObjectKey>;
}

export interface ModelOptions {
  /** A change is handed on when nothing has changed for this long ... */
  readonly debounceMs: number;
  /** ... but at the latest this long after the first. */
  readonly debounceMaxMs: number;
}

export const MODEL_DEFAULTS: ModelOptions = { debounceMs: 10, debounceMaxMs: 100 };

export interface ModelDeps {
  readonly onChange: (change: ModelChange) => void;
}

/** All objects of all sources, indexed, and which resources each change touches. Values equal to what was there are dropped. */
export class Model {
  readonly #options: ModelOptions;
  readonly #onChange: (change: ModelChange) => void;
  readonly #objects: Map<ObjectKey, MeshObject>;
  readonly #podsOfNode: Multimap<Pod>;
  readonly #podsOfNamespace: Multimap<Pod>;
  /** By namespace and one label: a service looks its pods up instead of trying every one. */
  readonly #podsByLabel: Multimap<Pod>;
  readonly #servicesOfNamespace: Multimap<Service>;
  /** By namespace and one label of the selector; a pod looks its own labels up instead of trying every service. */
  readonly #servicesBySelector: Multimap<Service>;
  #dirtyPods: Set<ObjectKey>;
  #dirtyServices: Set<ObjectKey>;
  #timer: NodeJS.Timeout | null;
  #firstChangeMs: number;

  constructor(options: ModelOptions, deps: ModelDeps) {
    this.#options = options;
    this.#onChange = deps.onChange;
    this.#objects = new Map();
    this.#podsOfNode = new Multimap();
    this.#podsOfNamespace = new Multimap();
    this.#podsByLabel = new Multimap();
    this.#servicesOfNamespace = new Multimap();
    this.#servicesBySelector = new Multimap();
    this.#dirtyPods = new Set();
    this.#dirtyServices = new Set();
    this.#timer = null;
    this.#firstChangeMs = 0;
  }

  /** Takes a batch of a source in one step; `onChange` follows, debounced. */
  apply(batch: SourceBatch<MeshObject>): void {
    for (const key of batch.removed) this.#replace(key, undefined);
    for (const [key, object] of batch.upserted) this.#replace(key, object);
    if (this.#dirtyPods.size > 0 || this.#dirtyServices.size > 0) this.#schedule();
  }

  /** Hands on what is pending now. */
  flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#dirtyPods.size === 0 && this.#dirtyServices.size === 0) return;
    const change = { pods: this.#dirtyPods, services: this.#dirtyServices };
    this.#dirtyPods = new Set();
    this.#dirtyServices = new Set();
    this.#onChange(change);
  }

  /** Drops what is pending. */
  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  pod(key: ObjectKey): Pod | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'Pod' ? object : undefined;
  }

  service(key: ObjectKey): Service | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'Service' ? object : undefined;
  }

  namespace(name: string): Namespace | undefined {
    const object = this.#objects.get(keyOf('Namespace', '', name));
    return object?.kind === 'Namespace' ? object : undefined;
  }

  node(name: string): Node | undefined {
    const object = this.#objects.get(keyOf('Node', '', name));
    return object?.kind === 'Node' ? object : undefined;
  }

  podsOnNode(nodeName: string): ReadonlySet<Pod> {
    return this.#podsOfNode.get(nodeName);
  }

  /** Services whose selector takes the pod, by name. */
  servicesSelecting(pod: Pod): readonly Service[] {
    const services: Service[] = [];
    for (const key of labelKeysOf(pod))
      for (const service of this.#servicesBySelector.get(key))
        if (selects(service.selector, pod.labels)) services.push(service);
    return services.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #replace(key: ObjectKey, object: MeshObject | undefined): void {
    const before = this.#objects.get(key);
    if (isDeepStrictEqual(before, object)) return;
    if (before !== undefined) {
      this.#touch(before);
      this.#unindex(before);
      this.#objects.delete(key);
    }
    if (object !== undefined) {
      this.#objects.set(key, object);
      this.#index(object);
      this.#touch(object);
    }
  }

  #index(object: MeshObject): void {
    if (object.kind === 'Pod') {
      this.#podsOfNode.add(object.nodeName, object);
      this.#podsOfNamespace.add(object.namespace, object);
      for (const key of labelKeysOf(object)) this.#podsByLabel.add(key, object);
    } else if (object.kind === 'Service') {
      this.#servicesOfNamespace.add(object.namespace, object);
      this.#servicesBySelector.add(selectorKeyOf(object), object);
    }
  }

  #unindex(object: MeshObject): void {
    if (object.kind === 'Pod') {
      this.#podsOfNode.delete(object.nodeName, object);
      this.#podsOfNamespace.delete(object.namespace, object);
      for (const key of labelKeysOf(object)) this.#podsByLabel.delete(key, object);
    } else if (object.kind === 'Service') {
      this.#servicesOfNamespace.delete(object.namespace, object);
      this.#servicesBySelector.delete(selectorKeyOf(object), object);
    }
  }

  /** Marks what depends on this object. */
  #touch(object: MeshObject): void {
    switch (object.kind) {
      case 'Pod':
        this.#touchPods([object]);
        break;
      case 'Service':
        this.#dirtyServices.add(keyOf('Service', object.namespace, object.name));
        for (const pod of this.#podsByLabel.get(selectorKeyOf(object)))
          if (selects(object.selector, pod.labels)) this.#touchPods([pod]);
        break;
      case 'Namespace':
        this.#touchPods(this.#podsOfNamespace.get(object.name));
        for (const { namespace, name } of this.#servicesOfNamespace.get(object.name))
          this.#dirtyServices.add(keyOf('Service', namespace, name));
        break;
      case 'Node':
        this.#touchPods(this.#podsOfNode.get(object.name));
        break;
      case 'ServiceAccount':
        break;
    }
  }

  #touchPods(pods: Iterable<Pod>): void {
    for (const { namespace, name } of pods) this.#dirtyPods.add(keyOf('Pod', namespace, name));
  }

  #schedule(): void {
    const now = performance.now();
    if (this.#timer === null) this.#firstChangeMs = now;
    else clearTimeout(this.#timer);
    const latest = this.#firstChangeMs + this.#options.debounceMaxMs - now;
    this.#timer = setTimeout(() => this.flush(), Math.max(0, Math.min(this.#options.debounceMs, latest)));
  }
}

/** As Kubernetes: a service without a selector, or with an empty one, has no pods by label. */
function selects(selector: Labels | null, labels: Labels): boolean {
  const wanted = Object.entries(selector ?? {});
  return wanted.length > 0 && wanted.every(([label, value]) => labels[label] === value);
}

function selectorKeyOf(service: Service): string {
  const first = Object.entries(service.selector ?? {})[0];
  return first === undefined ? '' : selectorKey(service.namespace, first[0], first[1]);
}

function labelKeysOf({ namespace, labels }: Pod): string[] {
  return Object.entries(labels).map(([label, value]) => selectorKey(namespace, label, value));
}

function selectorKey(namespace: string, label: string, value: string): string {
  return `${namespace}/${label}=${value}`;
}
