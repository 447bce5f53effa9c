/** Type URLs of hbone-and-wds.md 3.2. */
export const ADDRESS_TYPE_URL = 'type.googleapis.com/istio.workload.Address';
export const AUTHORIZATION_TYPE_URL = 'type.googleapis.com/istio.security.Authorization';
/** The mesh's roots: the one field of it that counts here. istiod names it so (PCDS), and is silent where it has none. */
export const PROXY_CONFIG_TYPE_URL = 'type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig';
/** Our own, in `extensions` (culvert/workload.proto). */
export const TRAFFIC_POLICY_TYPE_URL = 'type.googleapis.com/culvert.workload.TrafficPolicy';
export const ACCESS_LOG_POLICY_TYPE_URL = 'type.googleapis.com/culvert.workload.AccessLogPolicy';
export const OUTBOUND_POLICY_TYPE_URL = 'type.googleapis.com/culvert.workload.OutboundPolicy';
export const SERVICE_DNS_TYPE_URL = 'type.googleapis.com/culvert.workload.ServiceDns';
export const WORKLOAD_DNS_TYPE_URL = 'type.googleapis.com/culvert.workload.WorkloadDns';
