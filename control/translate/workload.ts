import type { Labels } from '../../mesh/manifests/index.js';
import { istio } from '../../mesh/proto/index.js';
import type { LocalityFields, Model, Node, Pod } from '../model/index.js';
import type { CaptureState } from './capture-signs.js';
import { accessLogExtension, outboundExtension, workloadDnsExtension } from './extensions.js';
import type { Memberships } from './memberships.js';
import { addressAlias, addressBytes, podUid } from './names.js';
import { isLive, networkGatewayOf } from './network.js';
import { policyNamesOf } from './policies/policies.js';
import type { Resource, TranslateOptions } from './types.js';

/** Everything that decides a pod's workload. */
export interface WorkloadInput {
  readonly pod: Pod;
  readonly capture: CaptureState;
  readonly model: Model;
  readonly network: string;
  readonly services: Memberships;
}

export type WorkloadResource = Resource<istio.workload.Workload.$Properties>;

const { NetworkMode, TunnelProtocol, WorkloadStatus, WorkloadType } = istio.workload;
const TUNNEL_LABEL = 'networking.istio.io/tunnel';

/** The `istio.workload.Workload` of a pod; null while it has no address and after it has ended (hbone-and-wds.md 3.5). */
export function translateWorkload(input: WorkloadInput, options: TranslateOptions): WorkloadResource | null {
  const { pod, capture, model, network, services } = input;
  if (!isLive(pod)) return null;
  const uid = podUid(pod, options);
  return {
    name: uid,
    // Pods of the host's network share their node's address, which therefore names none of them.
    aliases: pod.hostNetwork ? [] : pod.addresses.map((address) => addressAlias(network, address)),
    follows: Object.keys(services),
    message: {
      uid,
      name: pod.name,
      namespace: pod.namespace,
      addresses: pod.addresses.map(addressBytes),
      network,
      networkGateway: networkGatewayOf(uid, network, model),
      ...tunnelOf(input),
      trustDomain: wireTrustDomain(options),
      serviceAccount: pod.serviceAccount,
      node: pod.nodeName,
      ...telemetryNames(pod),
      status: pod.ready && capture !== 'awaited' ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
      clusterId: options.clusterId,
      services,
      authorizationPolicies: [...policyNamesOf(pod, model, options)],
      locality: wireLocality(localityOfNode(model.node(pod.nodeName))),
      networkMode: pod.hostNetwork ? NetworkMode.HOST_NETWORK : NetworkMode.STANDARD,
      applicationTunnel:
        pod.inboundBinding === null
          ? null
          : {
              protocol: istio.workload.ApplicationTunnel.Protocol[pod.inboundBinding.protocol],
              port: pod.inboundBinding.port,
            },
      extensions: [
        ...outboundExtension(model.outboundOf(pod.namespace) ?? options.outboundTrafficPolicy),
        ...workloadDnsExtension(pod),
        ...accessLogExtension(model.accessLogOf(pod.namespace)),
      ],
    },
  };
}

export function wireTrustDomain({ trustDomain }: TranslateOptions): string {
  return trustDomain === 'cluster.local' ? '' : trustDomain;
}

/** Whether it says that it speaks HBONE itself. */
export function hasNativeTunnel(labels: Labels): boolean {
  return labels[TUNNEL_LABEL] === 'http';
}

function tunnelOf({
  pod,
  capture,
}: WorkloadInput): Pick<istio.workload.Workload.$Properties, 'tunnelProtocol' | 'nativeTunnel'> {
  const nativeTunnel = hasNativeTunnel(pod.labels);
  const isHbone = nativeTunnel || capture !== 'plain';
  return { tunnelProtocol: isHbone ? TunnelProtocol.HBONE : TunnelProtocol.NONE, nativeTunnel };
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
  return { workloadName, workloadType: owner.type, ...canonicalNames(pod.labels, workloadName) };
}

export function canonicalNames(
  labels: Labels,
  fallback: string,
): Pick<istio.workload.Workload.$Properties, 'canonicalName' | 'canonicalRevision'> {
  return {
    canonicalName:
      labels['service.istio.io/canonical-name'] ??
      labels['app.kubernetes.io/name'] ??
      labels['app'] ??
      fallback,
    canonicalRevision:
      labels['service.istio.io/canonical-revision'] ??
      labels['app.kubernetes.io/version'] ??
      labels['version'] ??
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

export function localityOfNode(node: Node | undefined): LocalityFields {
  return {
    region: node?.labels['topology.kubernetes.io/region'] ?? '',
    zone: node?.labels['topology.kubernetes.io/zone'] ?? '',
    subzone: node?.labels['topology.istio.io/subzone'] ?? '',
  };
}

export function wireLocality(locality: LocalityFields): istio.workload.Locality.$Properties | null {
  const { region, zone, subzone } = locality;
  return region === '' && zone === '' && subzone === '' ? null : { region, zone, subzone };
}
