import { messageOf } from '../common/errors.js';
import {
  ACCESS_LOG_POLICY_TYPE_URL,
  culvert,
  type istio,
  OUTBOUND_POLICY_TYPE_URL,
  SERVICE_DNS_TYPE_URL,
  TRAFFIC_POLICY_TYPE_URL,
  WORKLOAD_DNS_TYPE_URL,
} from '../proto/index.js';
import type { AccessLogPolicy, ServiceDns, TrafficPolicy, Workload } from '../store/index.js';
import { type Problems, readEnum, readPort } from './fields.js';

type WireExtensions = readonly istio.workload.Extension.$Properties[] | null | undefined;

/** Our own extension of a Service (culvert/workload.proto), or null where there is none. */
export function readTrafficPolicy(extensions: WireExtensions, problems: Problems): TrafficPolicy | null {
  const wire = find(extensions, TRAFFIC_POLICY_TYPE_URL, culvert.workload.TrafficPolicy, problems);
  if (wire === null) return null;
  const outlier = wire.outlierDetection;
  if ((outlier?.maxEjectionPercent ?? 0) > 100)
    problems.add('traffic_policy.outlier_detection.max_ejection_percent', 'is above 100');
  return {
    loadBalancer: readEnum(
      wire.loadBalancer,
      ['random', 'least-connections', 'consistent-source'] as const,
      'traffic_policy.load_balancer',
      problems,
    ),
    connectTimeoutMs: wire.connectTimeoutMs ?? 0,
    maxConnectionAgeMs: Number(wire.maxConnectionAgeMs ?? 0),
    outlierDetection:
      outlier == null
        ? null
        : {
            consecutiveConnectFailures: outlier.consecutiveConnectFailures ?? 0,
            baseEjectionMs: outlier.baseEjectionMs ?? 0,
            maxEjectionPercent: outlier.maxEjectionPercent ?? 0,
          },
  };
}

/** Our own extension of a Workload, or null where there is none. */
export function readOutboundPolicy(
  extensions: WireExtensions,
  problems: Problems,
): NonNullable<Workload['outboundPolicy']> | null {
  const wire = find(extensions, OUTBOUND_POLICY_TYPE_URL, culvert.workload.OutboundPolicy, problems);
  return wire === null ? null : wire.registryOnly === true ? 'registry-only' : 'allow-any';
}

/** As `readTrafficPolicy`. */
export function readServiceDns(extensions: WireExtensions, problems: Problems): ServiceDns | null {
  const wire = find(extensions, SERVICE_DNS_TYPE_URL, culvert.workload.ServiceDns, problems);
  if (wire === null) return null;
  const ports = (wire.ports ?? []).map(({ name, port, protocol }, i) => {
    const known = PROTOCOLS.find((one) => one === protocol);
    if (known === undefined) problems.add(`service_dns.ports[${i}].protocol`, 'is not tcp, udp or sctp');
    const number = readPort(port, `service_dns.ports[${i}].port`, problems, 1);
    return { name: name ?? '', port: number, protocol: known ?? 'tcp' };
  });
  return { externalName: wire.externalName ?? '', ports };
}

const PROTOCOLS = ['tcp', 'udp', 'sctp'] as const;

/** As `readOutboundPolicy`. */
export function readWorkloadDns(
  extensions: WireExtensions,
  problems: Problems,
): NonNullable<Workload['dns']> | null {
  const wire = find(extensions, WORKLOAD_DNS_TYPE_URL, culvert.workload.WorkloadDns, problems);
  return wire === null ? null : { hostname: wire.hostname ?? '', subdomain: wire.subdomain ?? '' };
}

/** As `readOutboundPolicy`. */
export function readAccessLog(extensions: WireExtensions, problems: Problems): AccessLogPolicy | null {
  const wire = find(extensions, ACCESS_LOG_POLICY_TYPE_URL, culvert.workload.AccessLogPolicy, problems);
  if (wire === null) return null;
  const samplingPerMille = wire.samplingPerMille?.value ?? 1000;
  if (samplingPerMille > 1000) problems.add('access_log.sampling_per_mille', 'is above 1000');
  const levels = ['debug', 'info', 'warn', 'error'] as const;
  const level = readEnum(wire.level, levels, 'access_log.level', problems);
  return { disabled: wire.disabled ?? false, samplingPerMille, level };
}

/** Extensions of other types are somebody else's. */
function find<Message>(
  extensions: WireExtensions,
  typeUrl: string,
  type: { decode(bytes: Uint8Array): Message },
  problems: Problems,
): Message | null {
  for (const { name, config } of extensions ?? []) {
    if (config?.type_url !== typeUrl) continue;
    try {
      return type.decode(config.value ?? new Uint8Array());
    } catch (error) {
      problems.add(`extensions[${JSON.stringify(name ?? '')}]`, messageOf(error));
    }
  }
  return null;
}
