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
  readonly pods = new Set<ObjectKey>();
  readonly services = new Set<ObjectKey>();
  readonly serviceEntries = new Set<ObjectKey>();
  readonly workloadEntries = new Set<ObjectKey>();
  readonly endpointSlices = new Set<ObjectKey>();
  readonly policies = new Set<ObjectKey>();
  readonly destinationRules = new Set<ObjectKey>();
  readonly sidecars = new Set<ObjectKey>();
  readonly telemetries = new Set<ObjectKey>();

  get isEmpty(): boolean {
    const kinds: readonly ReadonlySet<ObjectKey>[] = Object.values(this);
    return kinds.every(({ size }) => size === 0);
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
