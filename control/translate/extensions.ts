import {
  ACCESS_LOG_POLICY_TYPE_URL,
  culvert,
  type istio,
  OUTBOUND_POLICY_TYPE_URL,
  SERVICE_DNS_TYPE_URL,
  TRAFFIC_POLICY_TYPE_URL,
  WORKLOAD_DNS_TYPE_URL,
} from '../../mesh/proto/index.js';
import type { AccessLogRules, Pod, RuleTrafficPolicy } from '../model/index.js';

type Extension = istio.workload.Extension.$Properties;

const { LoadBalancer } = culvert.workload.TrafficPolicy;
const BALANCERS = {
  random: LoadBalancer.RANDOM,
  'least-connections': LoadBalancer.LEAST_CONNECTIONS,
  'consistent-source': LoadBalancer.CONSISTENT_SOURCE,
};

/** What our agents read beyond Istio's workload API (mesh/proto/culvert/workload.proto). */
export function trafficPolicyExtension(policy: RuleTrafficPolicy | null): readonly Extension[] {
  if (policy === null) return [];
  const { connectTimeoutMs, maxConnectionAgeMs, outlierDetection } = policy;
  const loadBalancer = BALANCERS[policy.loadBalancer];
  const message = { loadBalancer, connectTimeoutMs, maxConnectionAgeMs, outlierDetection };
  return extension(
    'traffic-policy',
    TRAFFIC_POLICY_TYPE_URL,
    culvert.workload.TrafficPolicy.encode(message).finish(),
  );
}

export function serviceDnsExtension(
  externalName: string,
  ports: readonly { readonly name: string; readonly port: number; readonly protocol: string }[],
): readonly Extension[] {
  const named = ports
    .filter(({ name }) => name !== '')
    .map(({ name, port, protocol }) => ({ name, port, protocol: protocol.toLowerCase() }));
  if (externalName === '' && named.length === 0) return [];
  const message = { externalName, ports: named };
  return extension('dns', SERVICE_DNS_TYPE_URL, culvert.workload.ServiceDns.encode(message).finish());
}

export function workloadDnsExtension({
  hostname,
  subdomain,
}: Pick<Pod, 'hostname' | 'subdomain'>): readonly Extension[] {
  if (hostname === '' || subdomain === '') return [];
  const value = culvert.workload.WorkloadDns.encode({ hostname, subdomain }).finish();
  return extension('dns', WORKLOAD_DNS_TYPE_URL, value);
}

/** Absent means that every line is written. */
export function accessLogExtension(rules: AccessLogRules | null): readonly Extension[] {
  if (rules === null) return [];
  const { disabled, samplingPerMille } = rules;
  const message = { disabled, samplingPerMille: { value: samplingPerMille }, level: LEVELS[rules.level] };
  const value = culvert.workload.AccessLogPolicy.encode(message).finish();
  return extension('access-log', ACCESS_LOG_POLICY_TYPE_URL, value);
}

const { Level } = culvert.workload.AccessLogPolicy;
const LEVELS = { debug: Level.DEBUG, info: Level.INFO, warn: Level.WARN, error: Level.ERROR };

/** Absent means allow-any. */
export function outboundExtension(outbound: 'allow-any' | 'registry-only'): readonly Extension[] {
  if (outbound === 'allow-any') return [];
  const value = culvert.workload.OutboundPolicy.encode({ registryOnly: true }).finish();
  return extension('outbound-policy', OUTBOUND_POLICY_TYPE_URL, value);
}

function extension(name: string, typeUrl: string, value: Uint8Array): readonly Extension[] {
  return [{ name, config: { type_url: typeUrl, value } }];
}
