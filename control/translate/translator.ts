import type { istio } from '../../mesh/proto/index.js';
import type { Model, ModelChange, ObjectKey } from '../model/index.js';
import { podUid, serviceResourceName } from './names.js';
import { translateService } from './service.js';
import type { Resource, TranslateOptions } from './types.js';
import { translateWorkload } from './workload.js';

/** What a change of the model means for `istio.workload.Address`: null where the resource is gone. Names are resource names. */
export type AddressUpdates = ReadonlyMap<string, Resource<istio.workload.Address.$Properties> | null>;

/** Makes the touched resources anew. Reads the model, changes nothing. */
export function translateAddresses(
  model: Model,
  change: ModelChange,
  options: TranslateOptions,
): AddressUpdates {
  const updates = new Map<string, Resource<istio.workload.Address.$Properties> | null>();
  for (const key of change.services) {
    const service = model.service(key);
    const namespace = service && model.namespace(service.namespace);
    const resource = service === undefined ? null : translateService({ service, namespace }, options);
    const message = resource && { ...resource, message: { service: resource.message } };
    updates.set(serviceResourceName(partsOf(key), options), message);
  }
  for (const key of change.pods) {
    const resource = workloadOf(model, key, options);
    const { namespace, name } = partsOf(key);
    updates.set(
      podUid(namespace, name, options),
      resource && { ...resource, message: { workload: resource.message } },
    );
  }
  return updates;
}

function workloadOf(model: Model, key: ObjectKey, options: TranslateOptions) {
  const pod = model.pod(key);
  if (pod === undefined) return null;
  const input = {
    pod,
    namespace: model.namespace(pod.namespace),
    node: model.node(pod.nodeName),
    services: model.relations.selecting(pod).filter((one) => one.kind === 'Service'),
  };
  return translateWorkload(input, options);
}

function partsOf(key: ObjectKey): { namespace: string; name: string } {
  const [, namespace, name] = key.split('/');
  return { namespace: namespace!, name: name! };
}
