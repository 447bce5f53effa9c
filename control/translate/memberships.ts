import type { istio } from '../../mesh/proto/index.js';
import type {
  EndpointFields,
  EndpointSlice,
  Model,
  Pod,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from '../model/index.js';
import { entryResourceName, serviceResourceName } from './names.js';
import { networkOfEndpoint, networkOfPod, networkOfSliceEndpoint } from './network.js';
import { isTcp, portsAt, tcpPorts } from './ports.js';
import type { TranslateOptions } from './types.js';

/** Which services a workload serves, by resource name, and at which of its ports: `Workload.services`. */
export type Memberships = Readonly<Record<string, istio.workload.PortList.$Properties>>;

type WirePort = istio.workload.Port.$Properties;

/** Of a pod: services and entries whose selector takes it, and those that list its address among their endpoints. */
export function membershipsOfPod(pod: Pod, model: Model, options: TranslateOptions): Memberships {
  const lists: Record<string, istio.workload.PortList.$Properties> = {};
  const portOf = (name: string) => pod.ports.find((port) => port.name === name && isTcp(port))?.port ?? null;
  for (const one of model.relations.selecting(pod)) {
    if (one.kind === 'Service') addService(lists, one, portsAt(tcpPorts(one), portOf), options);
    else addEntry(lists, one, portsOfEntry(one, {}), model);
  }
  if (pod.hostNetwork) return lists;
  const network = networkOfPod(pod, model, options);
  for (const address of pod.addresses)
    for (const one of model.relations.listingAddress(address))
      addListing(lists, one, { address, network }, model, options);
  return lists;
}

/** What lists the address, of that network, among its endpoints. */
function addListing(
  lists: Record<string, istio.workload.PortList.$Properties>,
  one: EndpointSlice | ServiceEntry,
  { address, network }: { readonly address: string; readonly network: string },
  model: Model,
  options: TranslateOptions,
): void {
  if (one.kind === 'EndpointSlice') {
    const isListed = one.endpoints.some(
      (endpoint) =>
        endpoint.addresses.includes(address) && networkOfSliceEndpoint(endpoint, model, options) === network,
    );
    if (isListed) addSlice(lists, one, model, options);
    return;
  }
  for (const endpoint of one.endpoints)
    if (endpoint.address === address && networkOfEndpoint(endpoint, model, options) === network)
      addEntry(lists, one, portsOfEntry(one, endpoint.ports), model);
}

/** Of a WorkloadEntry: by selector; its own ports before what the service says. */
export function membershipsOfWorkloadEntry(
  entry: WorkloadEntry,
  model: Model,
  options: TranslateOptions,
): Memberships {
  const lists: Record<string, istio.workload.PortList.$Properties> = {};
  for (const one of model.relations.selecting(entry)) {
    if (one.kind === 'ServiceEntry') addEntry(lists, one, portsOfEntry(one, entry.ports), model);
    else {
      const ports = tcpPorts(one).flatMap((port): WirePort[] => {
        const { name, targetPort } = port;
        const own =
          portNamed(entry.ports, name) ??
          (typeof targetPort === 'number' ? targetPort : portNamed(entry.ports, targetPort));
        return own === undefined ? [] : [{ servicePort: port.port, targetPort: own }];
      });
      addService(lists, one, ports, options);
    }
  }
  return lists;
}

/** Of an endpoint that a ServiceEntry lists itself: all hosts of the entry, or the one that it stands for. */
export function membershipsOfEndpoint(
  entry: ServiceEntry,
  endpoint: Pick<EndpointFields, 'ports'>,
  model: Model,
  host?: string,
): Memberships {
  const lists: Record<string, istio.workload.PortList.$Properties> = {};
  addEntry(lists, entry, portsOfEntry(entry, endpoint.ports), model, host);
  return lists;
}

/** Of an endpoint of a slice: its service, if that has no selector. */
export function membershipsOfSlice(
  slice: EndpointSlice,
  model: Model,
  options: TranslateOptions,
): Memberships {
  const lists: Record<string, istio.workload.PortList.$Properties> = {};
  addSlice(lists, slice, model, options);
  return lists;
}

function addService(
  lists: Record<string, istio.workload.PortList.$Properties>,
  service: Service,
  ports: WirePort[],
  options: TranslateOptions,
): void {
  if (service.type !== 'ExternalName') lists[serviceResourceName(service, options)] = { ports };
}

/** With a selector the pods themselves are the endpoints, and the slices only Kubernetes' view of them. */
function addSlice(
  lists: Record<string, istio.workload.PortList.$Properties>,
  slice: EndpointSlice,
  model: Model,
  options: TranslateOptions,
): void {
  const service = model.service(`Service/${slice.namespace}/${slice.serviceName}`);
  if (service === undefined || service.selector !== null) return;
  const ports = tcpPorts(service).flatMap((port): WirePort[] => {
    const found = slice.ports.find((one) => one.name === port.name && isTcp(one));
    return found === undefined ? [] : [{ servicePort: port.port, targetPort: found.port }];
  });
  addService(lists, service, ports, options);
}

function addEntry(
  lists: Record<string, istio.workload.PortList.$Properties>,
  entry: ServiceEntry,
  ports: WirePort[],
  model: Model,
  only?: string,
): void {
  if (entry.visibility === 'none') return;
  for (const host of entry.hosts)
    if ((only === undefined || host === only) && model.ownsHost(entry, host))
      lists[entryResourceName(entry, host)] = { ports };
}

function portsOfEntry(entry: ServiceEntry, own: EndpointFields['ports']): WirePort[] {
  return entry.ports.map(({ name, port, targetPort }) => ({
    servicePort: port,
    targetPort: portNamed(own, name) ?? targetPort,
  }));
}

/** A port may well be called `constructor`. */
function portNamed(ports: EndpointFields['ports'], name: string): number | undefined {
  return Object.hasOwn(ports, name) ? ports[name] : undefined;
}
