/** Type URLs of hbone-and-wds.md 3.2. */
export const ADDRESS_TYPE_URL = 'type.googleapis.com/istio.workload.Address';
export const AUTHORIZATION_TYPE_URL = 'type.googleapis.com/istio.security.Authorization';
/** Our own, in `extensions` (culvert/workload.proto). */
export const TRAFFIC_POLICY_TYPE_URL = 'type.googleapis.com/culvert.workload.TrafficPolicy';
export const OUTBOUND_POLICY_TYPE_URL = 'type.googleapis.com/culvert.workload.OutboundPolicy';
export const SERVICE_DNS_TYPE_URL = 'type.googleapis.com/culvert.workload.ServiceDns';
export const WORKLOAD_DNS_TYPE_URL = 'type.googleapis.com/culvert.workload.WorkloadDns';
