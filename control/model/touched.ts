import { keyOf } from '../../mesh/manifests/index.js';
import type { MeshObject, ObjectKey } from './types.js';

/** Objects whose resources must be made anew, by kind; some may be gone. */
export interface ModelChange {
  readonly pods: ReadonlySet<ObjectKey>;
  readonly services: ReadonlySet<ObjectKey>;
  readonly serviceEntries: ReadonlySet<ObjectKey>;
  readonly workloadEntries: ReadonlySet<ObjectKey>;
  readonly endpointSlices: ReadonlySet<ObjectKey>;
  /** PeerAuthentications and AuthorizationPolicies. */
  readonly policies: ReadonlySet<ObjectKey>;
  /** These two have no resources of their own: what has is in the other sets. */
  readonly destinationRules: ReadonlySet<ObjectKey>;
  readonly sidecars: ReadonlySet<ObjectKey>;
  readonly telemetries: ReadonlySet<ObjectKey>;
}

/** Collects a change. */
export class Touched implements ModelChange {
  readonly pods: Set<ObjectKey>;
  readonly services: Set<ObjectKey>;
  readonly serviceEntries: Set<ObjectKey>;
  readonly workloadEntries: Set<ObjectKey>;
  readonly endpointSlices: Set<ObjectKey>;
  readonly policies: Set<ObjectKey>;
  readonly destinationRules: Set<ObjectKey>;
  readonly sidecars: Set<ObjectKey>;
  readonly telemetries: Set<ObjectKey>;

  constructor() {
    this.pods = new Set();
    this.services = new Set();
    this.serviceEntries = new Set();
    this.workloadEntries = new Set();
    this.endpointSlices = new Set();
    this.policies = new Set();
    this.destinationRules = new Set();
    this.sidecars = new Set();
    this.telemetries = new Set();
  }

  get isEmpty(): boolean {
    return (
      this.pods.size === 0 &&
      this.services.size === 0 &&
      this.serviceEntries.size === 0 &&
      this.workloadEntries.size === 0 &&
      this.endpointSlices.size === 0 &&
      this.policies.size === 0 &&
      this.destinationRules.size === 0 &&
      this.sidecars.size === 0 &&
      this.telemetries.size === 0
    );
  }

  /** Objects that others depend on only pass. */
  add(objects: Iterable<MeshObject>): void {
    for (const object of objects) {
      if (object.kind === 'Pod') this.pods.add(keyOfObject(object));
      else if (object.kind === 'Service') this.services.add(keyOfObject(object));
      else if (object.kind === 'ServiceEntry') this.serviceEntries.add(keyOfObject(object));
      else if (object.kind === 'WorkloadEntry') this.workloadEntries.add(keyOfObject(object));
      else if (object.kind === 'EndpointSlice') this.endpointSlices.add(keyOfObject(object));
      else if (object.kind === 'PeerAuthentication' || object.kind === 'AuthorizationPolicy')
        this.policies.add(keyOfObject(object));
      else if (object.kind === 'DestinationRule') this.destinationRules.add(keyOfObject(object));
      else if (object.kind === 'Sidecar') this.sidecars.add(keyOfObject(object));
      else if (object.kind === 'Telemetry') this.telemetries.add(keyOfObject(object));
    }
  }
}

export function keyOfObject(object: MeshObject): ObjectKey {
  return keyOf(object.kind, 'namespace' in object ? object.namespace : '', object.name);
}
