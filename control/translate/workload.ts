import { isEnrolled } from '../../mesh/manifests/index.js';
import { istio } from '../../mesh/proto/index.js';
import type { Namespace, Node, Pod, Service } from '../model/index.js';
import { addressAlias, addressBytes, podUid, serviceResourceName } from './names.js';
import { targetPortOf, tcpPorts } from './ports.js';
import type { Resource, TranslateOptions } from './types.js';

/** Everything that decides a pod's workload. */
export interface WorkloadInput {
  readonly pod: Pod;
  readonly namespace: Namespace | undefined;
  readonly node: Node | undefined;
  /** Those whose selector takes the pod. */
  readonly services: readonly Service[];
}

const { NetworkMode, TunnelProtocol, WorkloadStatus, WorkloadType } = istio.workload;

/** The `istio.workload.Workload` of a pod; null while it has no address and after it has ended (hbone-and-wds.md 3.5). */
export function translateWorkload(
  input: WorkloadInput,
  options: TranslateOptions,
): Resource<istio.workload.Workload.$Properties> | null {
  const { pod } = input;
  if (pod.addresses.length === 0 || pod.phase === 'Succeeded' || pod.phase === 'Failed') return null;
  const uid = podUid(pod.namespace, pod.name, options);
  const services = servicesOf(input, options);
  return {
    name: uid,
    // Pods of the host's network share their node's address, which therefore names none of them.
    aliases: pod.hostNetwork ? [] : pod.addresses.map((address) => addressAlias(address, options)),
    follows: Object.keys(services),
    message: {
      uid,
      name: pod.name,
      namespace: pod.namespace,
      addresses: pod.addresses.map(addressBytes),
      network: options.network,
      ...tunnelOf(input),
      trustDomain: options.trustDomain === 'cluster.local' ? '' : options.trustDomain,
      serviceAccount: pod.serviceAccount,
      node: pod.nodeName,
      ...telemetryNames(pod),
      status: pod.ready ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
      clusterId: options.clusterId,
      services,
      locality: localityOf(input.node),
      networkMode: pod.hostNetwork ? NetworkMode.HOST_NETWORK : NetworkMode.STANDARD,
    },
  };
}

function tunnelOf({
  pod,
  namespace,
}: WorkloadInput): Pick<istio.workload.Workload.$Properties, 'tunnelProtocol' | 'nativeTunnel'> {
  const nativeTunnel = pod.labels['networking.istio.io/tunnel'] === 'http';
  const isHbone = nativeTunnel || isEnrolled(pod, namespace);
  return { tunnelProtocol: isHbone ? TunnelProtocol.HBONE : TunnelProtocol.NONE, nativeTunnel };
}

/** Ports as this pod serves them. A named target port that the pod does not have is left out: that port has no endpoint here. */
function servicesOf(
  { pod, services }: WorkloadInput,
  options: TranslateOptions,
): Record<string, istio.workload.PortList.$Properties> {
  const lists: Record<string, istio.workload.PortList.$Properties> = {};
  for (const service of services) {
    if (service.type === 'ExternalName') continue;
    const ports = tcpPorts(service).flatMap((port) => {
      const targetPort = targetPortOf(port, pod);
      return targetPort === null ? [] : [{ servicePort: port.port, targetPort }];
    });
    lists[serviceResourceName(service, options)] = { ports };
  }
  return lists;
}

/** Labels of mesh-apis.md 1.2, last row; owners give Deployment, Job and CronJob names as Kubernetes' own controllers write them. */
function telemetryNames(
  pod: Pod,
): Pick<
  istio.workload.Workload.$Properties,
  'canonicalName' | 'canonicalRevision' | 'workloadName' | 'workloadType'
> {
  const owner = ownerOf(pod);
  const workloadName = pod.labels['service.istio.io/workload-name'] ?? owner.name;
  return {
    workloadName,
    workloadType: owner.type,
    canonicalName:
      pod.labels['service.istio.io/canonical-name'] ??
      pod.labels['app.kubernetes.io/name'] ??
      pod.labels['app'] ??
      workloadName,
    canonicalRevision:
      pod.labels['service.istio.io/canonical-revision'] ??
      pod.labels['app.kubernetes.io/version'] ??
      pod.labels['version'] ??
      'latest',
  };
}

function ownerOf(pod: Pod): { name: string; type: istio.workload.WorkloadType } {
  const { owner } = pod;
  const hash = pod.labels['pod-template-hash'];
  if (owner === null) return { name: pod.name, type: WorkloadType.POD };
  if (owner.kind === 'ReplicaSet' && hash !== undefined && owner.name.endsWith(`-${hash}`))
    return { name: owner.name.slice(0, -hash.length - 1), type: WorkloadType.DEPLOYMENT };
  // A CronJob names its Jobs <cron job>-<minutes since 1970>.
  const cronJob = owner.kind === 'Job' ? /^(.+)-\d{8}$/.exec(owner.name) : null;
  if (cronJob !== null) return { name: cronJob[1]!, type: WorkloadType.CRONJOB };
  return { name: owner.name, type: owner.kind === 'Job' ? WorkloadType.JOB : WorkloadType.POD };
}

function localityOf(node: Node | undefined): istio.workload.Locality.$Properties | null {
  const region = node?.labels['topology.kubernetes.io/region'] ?? '';
  const zone = node?.labels['topology.kubernetes.io/zone'] ?? '';
  const subzone = node?.labels['topology.istio.io/subzone'] ?? '';
  return region === '' && zone === '' && subzone === '' ? null : { region, zone, subzone };
}
