import {
  type DestinationRule,
  type Limitation,
  type Model,
  type ModelChange,
  type ObjectKey,
  type Service,
  type ServiceEntry,
  type Sidecar,
  type Telemetry,
  visibilityOfService,
  type WorkloadEntry,
} from '../model/index.js';
import { isDistribution } from './load-balancing.js';
import { entryResourceName } from './names.js';
import { networkOfEndpoint, podAt } from './network.js';
import { entryNeedsVip } from './service.js';
import type { TranslateOptions } from './types.js';
import type { Vips } from './vip-pool.js';

/** What of the touched objects is accepted but not in force as written; empty where nothing is, or the object is gone. */
export function limitationsOf(
  change: ModelChange,
  model: Model,
  vips: Vips,
  options: TranslateOptions,
): ReadonlyMap<ObjectKey, readonly Limitation[]> {
  const found = new Map<ObjectKey, readonly Limitation[]>();
  for (const key of change.services) {
    const service = model.service(key);
    found.set(key, service === undefined ? [] : ofService(service));
  }
  for (const key of change.endpointSlices) found.set(key, model.endpointSlice(key)?.limits ?? []);
  for (const key of change.serviceEntries) found.set(key, ofEntry(model.serviceEntry(key), model, vips));
  for (const key of change.workloadEntries)
    found.set(key, ofWorkloadEntry(model.workloadEntry(key), model, options));
  for (const key of change.destinationRules) found.set(key, ofRule(model.destinationRule(key), model));
  for (const key of change.sidecars) found.set(key, ofSidecar(model.sidecar(key), model));
  for (const key of change.telemetries) found.set(key, ofTelemetry(model.telemetry(key), model));
  return found;
}

function ofService(service: Service): readonly Limitation[] {
  const { limits } = visibilityOfService(service);
  if (isDistribution(service.trafficDistribution)) return limits;
  const reason = `'${service.trafficDistribution}' is not known`;
  return [...limits, { field: 'spec.trafficDistribution', reason, effect: 'ignored' }];
}

function ofEntry(entry: ServiceEntry | undefined, model: Model, vips: Vips): readonly Limitation[] {
  if (entry === undefined) return [];
  const found = [...entry.limits];
  for (const host of entry.hosts) {
    const add = (field: string, reason: string, effect: string) => found.push({ field, reason, effect });
    if (!model.ownsHost(entry, host))
      add('spec.hosts', `'${host}' is another's: a Service's, or an older entry's`, 'the host is left out');
    else if (entryNeedsVip(entry, host) && vips.isShort(entryResourceName(entry, host), entry))
      add(
        'spec.addresses',
        'all automatic addresses are in use',
        `'${host}' has none: nothing is routed to it`,
      );
    else if (entry.resolution === 'NONE' && entry.addresses.length === 0)
      add(
        'spec.addresses',
        'there is none, and resolution NONE is given none',
        `traffic to '${host}' is not told from other traffic to the outside`,
      );
  }
  return found;
}

function ofWorkloadEntry(
  entry: WorkloadEntry | undefined,
  model: Model,
  options: TranslateOptions,
): readonly Limitation[] {
  if (entry === undefined) return [];
  const pod = podAt(entry.address, networkOfEndpoint(entry, model, options), model, options);
  if (pod === undefined) return entry.limits;
  return [
    ...entry.limits,
    {
      field: 'spec.address',
      reason: `is the address of pod ${pod.namespace}/${pod.name}`,
      effect: 'the entry is left out: the pod is what is there',
    },
  ];
}

function ofRule(rule: DestinationRule | undefined, model: Model): readonly Limitation[] {
  if (rule === undefined) return [];
  const host = model.relations.hostOfRule(rule);
  const found = [...rule.limits];
  if (model.relations.rulesOf(rule.namespace, host)[0] !== rule)
    found.push({
      field: 'spec.host',
      reason: 'an older rule of the namespace has this host',
      effect: 'the whole object is not in force',
    });
  else if (isNobodys(host, model))
    found.push({
      field: 'spec.host',
      reason: `no Service and no ServiceEntry is '${host}'`,
      effect: 'the object acts on nothing',
    });
  else if (isOfAnotherNamespace(rule, host, model))
    found.push({
      field: 'spec.host',
      reason: 'is of another namespace, and agents tell all clients of a service the same',
      effect: "the whole object is not in force: write it in the service's namespace or the root namespace",
    });
  else if (rule.isPrivate && rule.trafficPolicy !== null && rule.namespace !== model.options.rootNamespace)
    found.push({
      field: 'spec.exportTo',
      reason: 'agents tell all clients of a service the same',
      effect: 'in force for clients of every namespace',
    });
  return found;
}

function isNobodys(host: string, model: Model): boolean {
  if (host.startsWith('*')) return false;
  return model.serviceOfHost(host) === undefined && model.relations.entriesOfHost(host).length === 0;
}

function isOfAnotherNamespace(rule: DestinationRule, host: string, model: Model): boolean {
  if (rule.namespace === model.options.rootNamespace || host.startsWith('*')) return false;
  const service = model.relations.serviceNameOf(host);
  const entries = model.relations.entriesOfHost(host);
  if (entries.some(({ namespace }) => namespace === rule.namespace)) return false;
  return service === null ? entries.length > 0 : service.namespace !== rule.namespace;
}

function ofSidecar(sidecar: Sidecar | undefined, model: Model): readonly Limitation[] {
  if (sidecar === undefined) return [];
  if (!sidecar.isForNamespace || model.relations.sidecarsOf(sidecar.namespace)[0] === sidecar)
    return sidecar.limits;
  const reason = 'an older Sidecar is for the whole namespace';
  return [...sidecar.limits, { field: '', reason, effect: 'the whole object is not in force' }];
}

function ofTelemetry(telemetry: Telemetry | undefined, model: Model): readonly Limitation[] {
  if (telemetry === undefined) return [];
  if (!telemetry.isForNamespace || model.relations.telemetriesOf(telemetry.namespace)[0] === telemetry)
    return telemetry.limits;
  const reason = 'an older Telemetry is for the whole namespace';
  return [...telemetry.limits, { field: '', reason, effect: 'the whole object is not in force' }];
}
