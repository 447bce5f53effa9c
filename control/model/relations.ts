import { keyOf, type Labels } from '../../mesh/manifests/index.js';
import { Multimap } from './multimap.js';
import { compareAge } from './report.js';
import type {
  DestinationRule,
  EndpointSlice,
  ServiceEntry,
  Sidecar,
  Telemetry,
  WorkloadEntry,
} from './service-types.js';
import type { Touched } from './touched.js';
import type { MeshObject, Pod, Service } from './types.js';

export interface RelationsOptions {
  /** Its DestinationRules, Sidecar and network hold for all namespaces. */
  readonly rootNamespace: string;
  /** DNS domain of services: `<name>.<namespace>.svc.<domain>`. */
  readonly clusterDomain: string;
}

/** Label: the network of what bears it; of a Service: the network that it is the gateway of. */
export const NETWORK_LABEL = 'topology.istio.io/network';

/** Whatever a selector takes. */
export type Selectable = Pod | WorkloadEntry;
/** Whatever has a selector. */
export type Selecting = Service | ServiceEntry;

/** Which objects belong together, by index: no look-up goes through all objects of a kind, but for rare changes that concern them all. */
export class Relations {
  readonly #options: RelationsOptions;
  readonly #ofNamespace: Multimap<MeshObject>;
  readonly #podsOnNode: Multimap<Pod>;
  readonly #slicesOnNode: Multimap<EndpointSlice>;
  /** By namespace and one label: a selector looks its objects up instead of trying every one. */
  readonly #byLabel: Multimap<Selectable>;
  /** By namespace and one label of the selector: an object looks its own labels up instead of trying every selector. */
  readonly #bySelector: Multimap<Selecting>;
  /** Whatever has, or lists as an endpoint, an IP address. Pods of the host's network share theirs and are left out. */
  readonly #podsByAddress: Multimap<Pod>;
  readonly #listingAddress: Multimap<EndpointSlice | ServiceEntry | WorkloadEntry>;
  /** By `namespace/service`. */
  readonly #slices: Multimap<EndpointSlice>;
  readonly #entriesByHost: Multimap<ServiceEntry>;
  /** By `namespace/host`, the host in full or with its wildcard. */
  readonly #rules: Multimap<DestinationRule>;
  readonly #rulesByHost: Multimap<DestinationRule>;
  readonly #sidecars: Multimap<Sidecar>;
  readonly #telemetries: Multimap<Telemetry>;
  /** By network. */
  readonly #gateways: Multimap<Service>;
  readonly #all: Set<MeshObject>;

  constructor(options: RelationsOptions) {
    this.#options = options;
    this.#ofNamespace = new Multimap();
    this.#podsOnNode = new Multimap();
    this.#slicesOnNode = new Multimap();
    this.#byLabel = new Multimap();
    this.#bySelector = new Multimap();
    this.#podsByAddress = new Multimap();
    this.#listingAddress = new Multimap();
    this.#slices = new Multimap();
    this.#entriesByHost = new Multimap();
    this.#rules = new Multimap();
    this.#rulesByHost = new Multimap();
    this.#sidecars = new Multimap();
    this.#telemetries = new Multimap();
    this.#gateways = new Multimap();
    this.#all = new Set();
  }

  add(object: MeshObject): void {
    this.#all.add(object);
    this.#forEachIndex(object, (index, key, value) => index.add(key, value));
  }

  delete(object: MeshObject): void {
    this.#all.delete(object);
    this.#forEachIndex(object, (index, key, value) => index.delete(key, value));
  }

  get all(): ReadonlySet<MeshObject> {
    return this.#all;
  }

  podsOnNode(nodeName: string): ReadonlySet<Pod> {
    return this.#podsOnNode.get(nodeName);
  }

  podsAt(address: string): ReadonlySet<Pod> {
    return this.#podsByAddress.get(address);
  }

  slicesOf(service: { readonly namespace: string; readonly name: string }): ReadonlySet<EndpointSlice> {
    return this.#slices.get(`${service.namespace}/${service.name}`);
  }

  /** EndpointSlices and ServiceEntries that list the address among their endpoints. */
  listingAddress(address: string): readonly (EndpointSlice | ServiceEntry)[] {
    return [...this.#listingAddress.get(address)].filter((object) => object.kind !== 'WorkloadEntry');
  }

  /** Whose selectors take the object; services by name, then entries by name. */
  selecting(object: Selectable): readonly Selecting[] {
    const found: Selecting[] = [];
    for (const key of labelKeysOf(object))
      for (const candidate of this.#bySelector.get(key))
        if (selects(candidate.selector, object.labels)) found.push(candidate);
    return found.sort((a, b) => (rankOf(a) < rankOf(b) ? -1 : 1));
  }

  /** Whom the selector takes. */
  selectedBy(object: Selecting): readonly Selectable[] {
    const found = [...this.#byLabel.get(selectorKeyOf(object))];
    return found.filter((candidate) => selects(object.selector, candidate.labels));
  }

  /** Whom the labels take in this namespace. */
  withLabels(namespace: string, labels: Labels): readonly Selectable[] {
    const [label, value] = Object.entries(labels)[0] ?? ['', ''];
    const found = [...this.#byLabel.get(labelKey(namespace, label, value))];
    return found.filter((candidate) => selects(labels, candidate.labels));
  }

  /** Whether `withLabels` would give any; with null for the namespace, in any. */
  hasLabels(namespace: string | null, labels: Labels): boolean {
    const [label, value] = Object.entries(labels)[0] ?? ['', ''];
    const candidates = namespace === null ? this.#all : this.#byLabel.get(labelKey(namespace, label, value));
    for (const one of candidates)
      if ((one.kind === 'Pod' || one.kind === 'WorkloadEntry') && selects(labels, one.labels)) return true;
    return false;
  }

  ofNamespace(namespace: string): ReadonlySet<MeshObject> {
    return this.#ofNamespace.get(namespace);
  }

  /** Services that are gateways of the network, by name. */
  gatewaysOf(network: string): readonly Service[] {
    return [...this.#gateways.get(network)].sort((a, b) => (rankOf(a) < rankOf(b) ? -1 : 1));
  }

  entriesOfHost(host: string): readonly ServiceEntry[] {
    return [...this.#entriesByHost.get(host)].sort(compareAge);
  }

  /** Rules of the namespace for exactly this host (which may be a wildcard), the one in force first. */
  rulesOf(namespace: string, host: string): readonly DestinationRule[] {
    return [...this.#rules.get(`${namespace}/${host}`)].sort(compareAge);
  }

  /** Telemetries for the whole namespace, the one in force first. */
  telemetriesOf(namespace: string): readonly Telemetry[] {
    return [...this.#telemetries.get(namespace)].sort(compareAge);
  }

  /** Sidecars for the whole namespace, the one in force first. */
  sidecarsOf(namespace: string): readonly Sidecar[] {
    return [...this.#sidecars.get(namespace)].sort(compareAge);
  }

  /** The host that a rule's means, in full. */
  hostOfRule(rule: DestinationRule): string {
    if (rule.host.includes('.') || rule.host === '*') return rule.host;
    return `${rule.host}.${rule.namespace}.svc.${this.#options.clusterDomain}`;
  }

  /** Namespace and name of the Service that has this hostname, if there is one. */
  serviceNameOf(host: string): { readonly namespace: string; readonly name: string } | null {
    const suffix = `.svc.${this.#options.clusterDomain}`;
    if (!host.endsWith(suffix)) return null;
    const [name, namespace, ...rest] = host.slice(0, -suffix.length).split('.');
    return name === undefined || namespace === undefined || rest.length > 0 ? null : { namespace, name };
  }

  hostnameOf(service: { readonly namespace: string; readonly name: string }): string {
    return `${service.name}.${service.namespace}.svc.${this.#options.clusterDomain}`;
  }

  /** Marks what depends on this object as it is indexed, and itself. */
  touch(object: MeshObject, touched: Touched): void {
    touched.add([object]);
    switch (object.kind) {
      case 'Pod':
        for (const address of object.addresses) touched.add(this.#listingAddress.get(address));
        if (this.#gateways.size > 0)
          touched.add(this.selecting(object).filter((one) => NETWORK_LABEL in one.labels));
        break;
      case 'Service':
        this.#touchService(object, touched);
        break;
      case 'ServiceEntry':
        this.#touchHosts(object.hosts, touched);
        this.#touchEntry(object, touched);
        break;
      case 'EndpointSlice':
        for (const { addresses } of object.endpoints)
          for (const address of addresses) touched.add(this.#podsByAddress.get(address));
        break;
      case 'Namespace':
        touched.add(
          object.name === this.#options.rootNamespace ? this.#all : this.#ofNamespace.get(object.name),
        );
        break;
      case 'Node':
        touched.add(this.#podsOnNode.get(object.name));
        touched.add(this.#slicesOnNode.get(object.name));
        break;
      case 'DestinationRule':
        this.#touchRule(object, touched);
        break;
      case 'Sidecar':
      case 'Telemetry':
        this.#touchPods(object, touched);
        break;
      case 'ServiceAccount':
      case 'WorkloadEntry':
      case 'PeerAuthentication':
      case 'AuthorizationPolicy':
        break;
    }
  }

  #touchService(service: Service, touched: Touched): void {
    touched.add(this.selectedBy(service));
    for (const slice of this.slicesOf(service)) this.touch(slice, touched);
    this.#touchHosts([this.hostnameOf(service)], touched);
    // Every workload of its network names it.
    if (NETWORK_LABEL in service.labels) touched.add(this.#all);
  }

  #touchHosts(hosts: readonly string[], touched: Touched): void {
    for (const host of hosts) {
      touched.add(this.#rulesByHost.get(host));
      for (const entry of this.#entriesByHost.get(host)) {
        touched.add([entry]);
        this.#touchEntry(entry, touched);
      }
    }
  }

  #touchEntry(entry: ServiceEntry, touched: Touched): void {
    touched.add(this.selectedBy(entry));
    for (const { address } of entry.endpoints) touched.add(this.#podsByAddress.get(address));
  }

  #touchRule(rule: DestinationRule, touched: Touched): void {
    const host = this.hostOfRule(rule);
    touched.add(this.#rulesByHost.get(host));
    if (host.startsWith('*')) {
      touched.add([...this.#all].filter((one) => one.kind === 'Service' || one.kind === 'ServiceEntry'));
      return;
    }
    touched.add(this.#entriesByHost.get(host));
    const service = this.serviceNameOf(host);
    if (service !== null) touched.services.add(keyOf('Service', service.namespace, service.name));
  }

  #touchPods({ kind, namespace }: Sidecar | Telemetry, touched: Touched): void {
    const isMeshWide = namespace === this.#options.rootNamespace;
    for (const one of isMeshWide ? this.#all : this.#ofNamespace.get(namespace))
      if (one.kind === 'Pod' || one.kind === kind) touched.add([one]);
  }

  #forEachIndex(
    object: MeshObject,
    visit: <Value>(index: Multimap<Value>, key: string, value: Value) => void,
  ): void {
    if ('namespace' in object) visit(this.#ofNamespace, object.namespace, object);
    if (object.kind === 'Pod' || object.kind === 'WorkloadEntry')
      for (const key of labelKeysOf(object)) visit(this.#byLabel, key, object);
    if ((object.kind === 'Service' || object.kind === 'ServiceEntry') && object.selector !== null)
      visit(this.#bySelector, selectorKeyOf(object), object);
    if (object.kind === 'Pod') {
      visit(this.#podsOnNode, object.nodeName, object);
      if (!object.hostNetwork)
        for (const address of object.addresses) visit(this.#podsByAddress, address, object);
    }
    if (object.kind === 'Service' && object.labels[NETWORK_LABEL] !== undefined)
      visit(this.#gateways, object.labels[NETWORK_LABEL], object);
    if (object.kind === 'EndpointSlice') this.#forEachSliceIndex(object, visit);
    if (object.kind === 'ServiceEntry') {
      for (const host of object.hosts) visit(this.#entriesByHost, host, object);
      for (const { address } of object.endpoints) visit(this.#listingAddress, address, object);
    }
    if (object.kind === 'WorkloadEntry') visit(this.#listingAddress, object.address, object);
    if (object.kind === 'DestinationRule') {
      visit(this.#rules, `${object.namespace}/${this.hostOfRule(object)}`, object);
      visit(this.#rulesByHost, this.hostOfRule(object), object);
    }
    if (object.kind === 'Telemetry' && object.isForNamespace)
      visit(this.#telemetries, object.namespace, object);
    if (object.kind === 'Sidecar' && object.isForNamespace) visit(this.#sidecars, object.namespace, object);
  }

  #forEachSliceIndex(
    slice: EndpointSlice,
    visit: <Value>(index: Multimap<Value>, key: string, value: Value) => void,
  ): void {
    if (slice.serviceName !== '') visit(this.#slices, `${slice.namespace}/${slice.serviceName}`, slice);
    for (const { addresses, nodeName } of slice.endpoints) {
      for (const address of addresses) visit(this.#listingAddress, address, slice);
      if (nodeName !== '') visit(this.#slicesOnNode, nodeName, slice);
    }
  }
}

/** As Kubernetes: a service without a selector, or with an empty one, has no pods by label. */
export function selects(selector: Labels | null, labels: Labels): boolean {
  let isEmpty = true;
  // Not Object.entries: this runs for each pair of a pod and a service that share a label.
  for (const label in selector) {
    if (labels[label] !== selector[label]) return false;
    isEmpty = false;
  }
  return !isEmpty;
}

function selectorKeyOf(object: Selecting): string {
  const first = Object.entries(object.selector ?? {})[0];
  return first === undefined ? '' : labelKey(object.namespace, first[0], first[1]);
}

function labelKeysOf({ namespace, labels }: Selectable): string[] {
  return Object.entries(labels).map(([label, value]) => labelKey(namespace, label, value));
}

function labelKey(namespace: string, label: string, value: string): string {
  return `${namespace}/${label}=${value}`;
}

function rankOf({ kind, namespace, name }: Selecting): string {
  return `${kind === 'Service' ? 0 : 1}/${namespace}/${name}`;
}
