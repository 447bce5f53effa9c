import { formatSpiffeId } from '../../mesh/identity/index.js';
import { istio } from '../../mesh/proto/index.js';
import type { Model, ModelChange, ObjectKey } from '../model/index.js';
import { CaptureSigns, type CaptureSignsOptions } from './capture-signs.js';
import {
  translateEntryEndpoints,
  translateGateway,
  translateSlice,
  translateWorkloadEntry,
} from './endpoint.js';
import { membershipsOfPod } from './memberships.js';
import { meshNetwork, networkOfPod } from './network.js';
import { RemoteIdentities } from './remote-identities.js';
import { type ServiceContext, translateEntry, translateService } from './service.js';
import type { Resource, TranslateOptions } from './types.js';
import type { Vips } from './vip-pool.js';
import { translateWorkload, type WorkloadResource } from './workload.js';

type AddressResource = Resource<istio.workload.Address.$Properties>;

/** What a change of the model means for `istio.workload.Address`: null where the resource is gone. Names are resource names. */
export type AddressUpdates = ReadonlyMap<string, AddressResource | null>;

export interface AddressTranslatorDeps {
  readonly model: Model;
  /** Addresses of ServiceEntries that have none. */
  readonly vips: Vips;
}

/** Makes the resources of touched objects anew, and knows which resources each object became, to take away those that it no longer is. */
export class AddressTranslator {
  readonly #options: TranslateOptions;
  readonly #model: Model;
  readonly #vips: Vips;
  /** Names of the resources of each object. */
  readonly #names: Map<ObjectKey, readonly string[]>;
  /** Which object a resource was made of. */
  readonly #origins: Map<string, ObjectKey>;
  readonly #remote: RemoteIdentities;
  readonly #captureSigns: CaptureSigns;

  constructor(options: TranslateOptions & Partial<CaptureSignsOptions>, deps: AddressTranslatorDeps) {
    this.#options = options;
    this.#model = deps.model;
    this.#vips = deps.vips;
    this.#names = new Map();
    this.#origins = new Map();
    this.#remote = new RemoteIdentities();
    this.#captureSigns = new CaptureSigns({ captureSign: 'label', ...options });
  }

  /** What the touched objects are now. Workloads first: services tell of their endpoints in other networks. */
  translate(change: ModelChange): AddressUpdates {
    const updates = new Map<string, AddressResource | null>();
    const network = meshNetwork(this.#model, this.#options);
    const services = new Set([...change.services, ...change.serviceEntries]);
    const workloads = [change.pods, change.workloadEntries, change.endpointSlices, change.serviceEntries];
    for (const keys of workloads)
      for (const key of keys)
        for (const origin of this.#putWorkloads(updates, key, network)) services.add(origin);
    for (const key of services) this.#putServices(updates, key, network);
    return updates;
  }

  /** Gives the objects whose services must be made anew for it. */
  #putWorkloads(
    updates: Map<string, AddressResource | null>,
    key: ObjectKey,
    network: string,
  ): Set<ObjectKey> {
    const resources = this.#workloadsOf(key);
    const origins = new Set<ObjectKey>();
    const take = (names: readonly string[]) => {
      for (const name of names) {
        const origin = this.#origins.get(name);
        if (origin !== undefined) origins.add(origin);
      }
    };
    const gone = this.#put(
      updates,
      `${key} workloads`,
      resources.map((resource) => ({ ...resource, message: { workload: resource.message } })),
    );
    for (const uid of gone) take(this.#remote.set(uid, null));
    for (const { name, message, follows } of resources) {
      const isRemote = message.network !== network && message.tunnelProtocol === HBONE;
      take(
        this.#remote.set(name, isRemote ? { services: follows, identity: this.#identityOf(message) } : null),
      );
    }
    return origins;
  }

  #workloadsOf(key: ObjectKey): readonly WorkloadResource[] {
    const model = this.#model;
    const pod = model.pod(key);
    if (pod !== undefined) {
      const network = networkOfPod(pod, model, this.#options);
      const services = membershipsOfPod(pod, model, this.#options);
      const capture = this.#captureSigns.stateOf(key, pod, model);
      const resource = translateWorkload({ pod, capture, model, network, services }, this.#options);
      return resource === null ? [] : [resource];
    }
    this.#captureSigns.forget(key);
    const workloadEntry = model.workloadEntry(key);
    if (workloadEntry !== undefined) return translateWorkloadEntry(workloadEntry, model, this.#options);
    const slice = model.endpointSlice(key);
    if (slice !== undefined) return translateSlice(slice, model, this.#options);
    const entry = model.serviceEntry(key);
    return entry === undefined ? [] : translateEntryEndpoints(entry, model, this.#options);
  }

  #putServices(updates: Map<string, AddressResource | null>, key: ObjectKey, network: string): void {
    const model = this.#model;
    const context = (name: string): ServiceContext => ({
      model,
      network,
      remoteIdentities: this.#remote.identitiesOf(name),
      options: this.#options,
    });
    const resources: AddressResource[] = [];
    const service = model.service(key);
    const entry = model.serviceEntry(key);
    const taken = new Set<string>();
    if (service !== undefined) {
      const name = `${service.namespace}/${model.relations.hostnameOf(service)}`;
      const resource = translateService(service, context(name));
      if (resource !== null) resources.push({ ...resource, message: { service: resource.message } });
      for (const gateway of translateGateway(service, model, this.#options))
        resources.push({ ...gateway, message: { workload: gateway.message } });
    } else if (entry !== undefined) {
      const autoVip = (name: string) => {
        taken.add(name);
        return this.#vips.take(name, entry);
      };
      for (const resource of translateEntry(entry, context, autoVip))
        resources.push({ ...resource, message: { service: resource.message } });
    }
    const before = this.#names.get(key) ?? [];
    this.#put(updates, key, resources);
    for (const name of before)
      if (!taken.has(name) && (this.#origins.get(name) ?? key) === key) this.#vips.release(name);
  }

  /** Notes what the object is now; gives the names that it no longer has. Another object may have taken one over in the same change. */
  #put(
    updates: Map<string, AddressResource | null>,
    key: ObjectKey,
    resources: readonly AddressResource[],
  ): readonly string[] {
    const names = resources.map(({ name }) => name);
    const gone = (this.#names.get(key) ?? []).filter((name) => !names.includes(name));
    for (const name of gone) {
      if (this.#origins.get(name) !== key) continue;
      this.#origins.delete(name);
      updates.set(name, null);
    }
    for (const resource of resources) {
      this.#origins.set(resource.name, key);
      updates.set(resource.name, resource);
    }
    if (names.length === 0) this.#names.delete(key);
    else this.#names.set(key, names);
    return gone;
  }

  #identityOf(message: istio.workload.Workload.$Properties): string {
    return formatSpiffeId({
      trustDomain: this.#options.trustDomain,
      namespace: message.namespace ?? '',
      serviceAccount: message.serviceAccount || 'default',
    });
  }
}

const HBONE = istio.workload.TunnelProtocol.HBONE;
