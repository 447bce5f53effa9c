import type { StoreUpdate } from './types.js';

/**
 * An update in parts of at most `maxObjects` objects, for `Store.stage`: what a thread can take between two turns. The first has the removals
 * and says whether it is a snapshot.
 */
export function partsOf(update: StoreUpdate, maxObjects: number): StoreUpdate[] {
  const { snapshot, removed, removedPolicies, policiesAreComplete } = update;
  const none = {
    snapshot: false,
    workloads: [],
    services: [],
    policies: [],
    removed: [],
    removedPolicies: [],
  };
  const told = policiesAreComplete === undefined ? {} : { policiesAreComplete };
  const parts: StoreUpdate[] = [{ ...none, ...told, snapshot, removed, removedPolicies }];
  for (const workloads of slicesOf(update.workloads, maxObjects)) parts.push({ ...none, workloads });
  for (const services of slicesOf(update.services, maxObjects)) parts.push({ ...none, services });
  for (const policies of slicesOf(update.policies, maxObjects)) parts.push({ ...none, policies });
  return parts;
}

/** Objects that an update brings; what it removes costs little. */
export function sizeOf(update: StoreUpdate): number {
  return update.workloads.length + update.services.length + update.policies.length;
}

function* slicesOf<Item>(items: readonly Item[], length: number): Generator<readonly Item[]> {
  for (let at = 0; at < items.length; at += length) yield items.slice(at, at + length);
}
