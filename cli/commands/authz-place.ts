import { BlockList } from 'node:net';
import { isIpv6, tryCanonicalAddress } from '../../mesh/common/address.js';
import { identityOf, type Service, type Store, serviceKeyOf, type Workload } from '../../mesh/store/index.js';
import type { AgentDump } from '../agent-dump.js';
import { CliError } from '../errors.js';

/** What `authz explain` reads of an agent. */
export interface Known {
  readonly store: Store;
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  /** Of the agent. */
  readonly options: AgentDump['options'];
  /** Of this node, as its agent has them. */
  readonly pods: AgentDump['capture']['pods'];
}

/** One pod that a connection reaches, with the port of its own. */
export interface Place {
  readonly workload: Workload;
  readonly port: number;
}

/** What was asked for: where the client dials, and the pods that this leads to. */
export interface Target {
  /** `ns/hostname` of the service; null: the pod itself is dialled. */
  readonly service: string | null;
  /** What the client dials; '' where that is not known. */
  readonly address: string;
  readonly port: number;
  readonly places: readonly Place[];
  /** What is worth saying of it. */
  readonly notes: readonly string[];
}

/** Who connects. */
export interface Source {
  /** Null: plain text. */
  readonly identity: string | null;
  readonly sourceAddress: string;
  /** Why it is plain text, where that is not said by who it is. */
  readonly notes: readonly string[];
}

/** A pod as NAMESPACE/NAME or its address; a service as its hostname, NAMESPACE/NAME or VIP. @throws CliError NOT_FOUND */
export function targetNamed(text: string, port: number, known: Known): Target {
  const workload = findWorkload(text, known);
  if (workload !== undefined) {
    const notes = [...workload.services].flatMap(([key, ports]) =>
      ports
        .filter((one) => one.servicePort === port && one.targetPort !== 0 && one.targetPort !== port)
        .map((one) => `port ${port} of ${key} is port ${one.targetPort} of the pod, by which policies judge`),
    );
    const places = [{ workload, port }];
    return { service: null, address: workload.addresses[0] ?? '', port, places, notes };
  }
  const service = findService(text, known);
  if (service === undefined)
    throw new CliError('NOT_FOUND', `no workload or service ${text} in this agent's configuration`, {
      name: text,
    });
  return targetOf(service, port, known);
}

function targetOf(service: Service, port: number, { store }: Known): Target {
  const key = serviceKeyOf(service);
  const places = store.endpointsOf(service).flatMap((workload) => {
    const own = workload.services.get(key)?.find(({ servicePort }) => servicePort === port)?.targetPort ?? 0;
    const target = own || (service.ports.find(({ servicePort }) => servicePort === port)?.targetPort ?? 0);
    return target === 0 ? [] : [{ workload, port: target }];
  });
  if (places.length === 0) {
    const ports = service.ports.map(({ servicePort }) => servicePort).join(', ') || 'none';
    throw new CliError('NOT_FOUND', `${key} has no endpoint with port ${port}; its ports are ${ports}`, {
      name: key,
    });
  }
  const notes = [`${key} port ${port}: ${places.length} endpoints, by whose own ports policies judge`];
  return { service: key, address: service.vips[0]?.address ?? '', port, places, notes };
}

/** A pod, an identity `spiffe://…`, or an address without one. @throws CliError NOT_FOUND */
export function sourceNamed(text: string, isPlaintext: boolean, target: Target, known: Known): Source {
  if (text.startsWith('spiffe://')) return { identity: text, sourceAddress: '', notes: [] };
  const address = tryCanonicalAddress(text);
  if (address !== null) return { identity: null, sourceAddress: address, notes: [] };
  const workload = findWorkload(text, known);
  if (workload === undefined)
    throw new CliError('NOT_FOUND', `no workload ${text} in this agent's configuration`, { name: text });
  const why =
    workload.tunnelProtocol === 'none' ? 'is outside of the mesh' : leftAlone(workload, target, known);
  const isPlain = isPlaintext || why !== '';
  return {
    identity: isPlain ? null : identityOf(workload),
    sourceAddress: workload.addresses[0] ?? '',
    notes: why === '' ? [] : [`${text} ${why}: it connects in plain text`],
  };
}

/** Why the client's own agent leaves the connection alone; else empty. Of pods of other nodes nobody here knows. */
function leftAlone(client: Workload, { address, port }: Target, known: Known): string {
  const pod = podOf(client, known);
  if (pod === undefined) return '';
  if (pod.state === 'plain') return 'is not captured on this node';
  const { outboundPorts, outboundRanges } = pod.exclusions;
  if (outboundPorts.includes(port)) return `excludes port ${port} by annotation`;
  const range = outboundRanges.find((one) => isWithin(address, one));
  return range === undefined ? '' : `excludes ${range} by annotation`;
}

function isWithin(address: string, range: string): boolean {
  const [network = '', bits] = range.split('/');
  if (address === '' || isIpv6(address) !== isIpv6(network)) return false;
  const family = isIpv6(network) ? 'ipv6' : 'ipv4';
  const list = new BlockList();
  list.addSubnet(network, Number(bits), family);
  return list.check(address, family);
}

/** Whether policies are judged before the pod, and by whom. */
export interface Enforcement {
  /** `agent`: they are. `nobody`: whatever they say, the connection comes in. `refused`: no connection comes in. */
  readonly by: 'agent' | 'nobody' | 'refused';
  /** Completes "the pod …". */
  readonly reason: string;
}

/** `isPlaintext`: the connection does not come by HBONE, which no exclusion takes from the agent. */
export function enforcementAt({ workload, port }: Place, isPlaintext: boolean, known: Known): Enforcement {
  const pod = podOf(workload, known);
  if (pod === undefined) return enforcementElsewhere(workload, isPlaintext, known);
  if (pod.state === 'plain') return { by: 'nobody', reason: 'is outside of the mesh' };
  if (pod.state !== 'captured')
    return { by: 'refused', reason: `is ${pod.state} on this node: ${pod.reason}` };
  const { inboundPorts } = pod.exclusions;
  if (isPlaintext && inboundPorts.includes(0))
    return { by: 'nobody', reason: 'has all of its ports excluded by annotation' };
  if (isPlaintext && inboundPorts.includes(port))
    return { by: 'nobody', reason: `has port ${port} excluded by annotation` };
  return { by: 'agent', reason: 'is captured on this node' };
}

function enforcementElsewhere(workload: Workload, isPlaintext: boolean, known: Known): Enforcement {
  if (workload.tunnelProtocol === 'none') return { by: 'nobody', reason: 'is outside of the mesh' };
  if (workload.node === known.options.node)
    return { by: 'refused', reason: "is not known to this node's agent, though the controller names it" };
  const where = workload.node === '' ? 'of its node' : `of node ${workload.node}`;
  const unknown = isPlaintext
    ? `; whether its annotations exclude the port only that one knows: ask there`
    : '';
  return { by: 'agent', reason: `is served by the agent ${where}${unknown}` };
}

function podOf(workload: Workload, { options: { node }, pods }: Known): Known['pods'][number] | undefined {
  if (workload.node !== node) return undefined;
  return pods.find(({ namespace, name }) => namespace === workload.namespace && name === workload.name);
}

function findWorkload(text: string, { workloads }: Known): Workload | undefined {
  const address = tryCanonicalAddress(text);
  return workloads.find((one) =>
    address === null ? `${one.namespace}/${one.name}` === text : one.addresses.includes(address),
  );
}

function findService(text: string, { store, services, options: { network } }: Known): Service | undefined {
  const address = tryCanonicalAddress(text);
  if (address !== null) return store.serviceByVip(network, address, '');
  const host = text.toLowerCase().replace(/\.$/, '');
  const named = services.filter(
    (one) => one.hostname === host || `${one.namespace}/${one.name}` === text || serviceKeyOf(one) === text,
  );
  return named.find(({ canonical }) => canonical) ?? named[0];
}
