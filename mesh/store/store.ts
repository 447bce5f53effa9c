import { compareText, firstBy, GroupedIndex, trueFirst } from './grouped-index.js';
import { PolicyIndex } from './policy-index.js';
import {
  type NamespacedHostname,
  type PolicySet,
  type Service,
  type StagedUpdate,
  type Store,
  type StoreUpdate,
  serviceKeyOf,
  type Workload,
} from './types.js';
import { VipIndex } from './vip-index.js';

export interface StoreOptions {
  /** Among services of one VIP that are otherwise equal, those of this namespace win. @default '' (none) */
  readonly preferredServiceNamespace?: string;
}

/** An empty store. One per thread; 10,000 workloads take tens of milliseconds. */
export function createStore(options: StoreOptions = {}): Store {
  return new IndexedStore(options);
}

class IndexedStore implements Store {
  readonly #options: StoreOptions;
  // All state below is what `#adopt` takes over.
  #workloads = new Map<string, Workload>();
  #workloadsByAddress = new GroupedIndex<Workload>();
  #workloadsByName = new GroupedIndex<Workload>();
  /** By service key, whether or not that service is known (endpoints may come first). */
  #endpoints = new GroupedIndex<Workload>();
  #services = new Map<string, Service>();
  #servicesByHostname = new GroupedIndex<Service>();
  #vips: VipIndex;
  #policies = new PolicyIndex();

  constructor(options: StoreOptions) {
    this.#options = options;
    this.#vips = new VipIndex(options.preferredServiceNamespace ?? '');
  }

  workloadByUid(uid: string): Workload | undefined {
    return this.#workloads.get(uid);
  }

  workloadOfPod(namespace: string, name: string, serviceAccount: string): Workload | undefined {
    const named = this.#workloadsByName.get(nameKey(namespace, name));
    return firstBy(
      named.filter((one) => one.serviceAccount === serviceAccount && one.defect === undefined),
      compareWorkloads,
    );
  }

  workloadByAddress(network: string, address: string): Workload | undefined {
    return firstBy(this.#workloadsByAddress.get(addressKey(network, address)), compareWorkloads);
  }

  serviceByVip(network: string, address: string, namespace: string): Service | undefined {
    const service = this.#vips.find(network, address, namespace);
    if (service === undefined || service.namespace === namespace) return service;
    // Whoever may declare services in one namespace must not draw to it what clients of others send to pods.
    const there = this.workloadByAddress(network, address);
    const isOfPod = there !== undefined && isPod(there) && there.namespace !== service.namespace;
    return isOfPod ? undefined : service;
  }

  serviceByHostname(namespace: string, hostname: string): Service | undefined {
    return this.#services.get(serviceKeyOf({ namespace, hostname }));
  }

  servicesByHostname(hostname: string): readonly Service[] {
    return this.#servicesByHostname.get(hostname);
  }

  endpointsOf(service: NamespacedHostname): readonly Workload[] {
    return this.#endpoints.get(serviceKeyOf(service));
  }

  policiesOf(workload: Workload): PolicySet {
    return this.#policies.of(workload);
  }

  apply(update: StoreUpdate): void {
    if (update.snapshot) this.#clear();
    for (const name of update.removed) this.#remove(name);
    for (const key of update.removedPolicies) this.#policies.remove(key);
    for (const workload of update.workloads) this.#putWorkload(workload);
    for (const service of update.services) this.#putService(service);
    for (const policy of update.policies) this.#policies.put(policy);
    if (update.snapshot) this.#policies.setComplete(update.policiesAreComplete ?? true);
    else if (update.policiesAreComplete === true) this.#policies.setComplete(true);
  }

  stage(): StagedUpdate {
    const parts: StoreUpdate[] = [];
    let shadow: IndexedStore | null = null;
    return {
      add: (part) => {
        if (part.snapshot) shadow = new IndexedStore(this.#options);
        if (shadow === null) parts.push(part);
        else shadow.apply(part);
      },
      commit: () => {
        if (shadow !== null) this.#adopt(shadow);
        for (const part of parts) this.apply(part);
      },
    };
  }

  #adopt(other: IndexedStore): void {
    this.#workloads = other.#workloads;
    this.#workloadsByAddress = other.#workloadsByAddress;
    this.#workloadsByName = other.#workloadsByName;
    this.#endpoints = other.#endpoints;
    this.#services = other.#services;
    this.#servicesByHostname = other.#servicesByHostname;
    this.#vips = other.#vips;
    this.#policies = other.#policies;
  }

  snapshot(): StoreUpdate {
    return {
      snapshot: true,
      workloads: [...this.#workloads.values()],
      services: [...this.#services.values()],
      policies: this.#policies.all(),
      policiesAreComplete: this.#policies.isComplete,
      removed: [],
      removedPolicies: [],
    };
  }

  #clear(): void {
    this.#workloads.clear();
    this.#workloadsByAddress.clear();
    this.#workloadsByName.clear();
    this.#endpoints.clear();
    this.#services.clear();
    this.#servicesByHostname.clear();
    this.#vips.clear();
    this.#policies.clear();
  }

  #remove(name: string): void {
    if (!this.#removeWorkload(name)) this.#removeService(name);
  }

  #putWorkload(workload: Workload): void {
    this.#removeWorkload(workload.uid);
    this.#workloads.set(workload.uid, workload);
    this.#workloadsByName.add(nameKey(workload.namespace, workload.name), workload);
    for (const key of addressKeysOf(workload)) this.#workloadsByAddress.add(key, workload);
    // One that could not be read is known by its addresses only, to be refused.
    if (workload.defect !== undefined) return;
    for (const key of workload.services.keys()) this.#endpoints.add(key, workload);
  }

  #removeWorkload(uid: string): boolean {
    const workload = this.#workloads.get(uid);
    if (workload === undefined) return false;
    this.#workloads.delete(uid);
    this.#workloadsByName.remove(nameKey(workload.namespace, workload.name), workload);
    for (const key of addressKeysOf(workload)) this.#workloadsByAddress.remove(key, workload);
    for (const key of workload.services.keys()) this.#endpoints.remove(key, workload);
    return true;
  }

  #putService(service: Service): void {
    const key = serviceKeyOf(service);
    this.#removeService(key);
    this.#services.set(key, service);
    this.#servicesByHostname.add(service.hostname, service);
    this.#vips.add(service);
  }

  #removeService(key: string): void {
    const service = this.#services.get(key);
    if (service === undefined) return;
    this.#services.delete(key);
    this.#servicesByHostname.remove(service.hostname, service);
    this.#vips.remove(service);
  }
}

/** Several workloads on one address: a pod before anything else, then one that speaks HBONE (sheet 6). */
function compareWorkloads(a: Workload, b: Workload): number {
  return (
    trueFirst(a.defect === undefined, b.defect === undefined) ||
    trueFirst(isPod(a), isPod(b)) ||
    trueFirst(a.tunnelProtocol === 'hbone', b.tunnelProtocol === 'hbone') ||
    compareText(a.uid, b.uid)
  );
}

/** Uids are opaque but for this: `<cluster>//Pod/<ns>/<name>` (sheet 3.4). */
function isPod(workload: Workload): boolean {
  return workload.uid.includes('//Pod/');
}

/** A host-network workload shares its node's address, so the address says nothing about it. */
function addressKeysOf(workload: Workload): string[] {
  if (workload.hostNetwork) return [];
  return workload.addresses.map((address) => addressKey(workload.network, address));
}

function addressKey(network: string, address: string): string {
  return `${network}/${address}`;
}

function nameKey(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}
