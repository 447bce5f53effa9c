export { type EncodedResource, encodeDeltaResponse, encodeResource } from './delta-response.js';
export { culvert, envoy, google, istio } from './gen/messages.js';
export { decodeKeepingUnknown } from './keep-unknown.js';
export { AggregatedDiscoveryService, IstioCertificateService } from './services.js';
export {
  ACCESS_LOG_POLICY_TYPE_URL,
  ADDRESS_TYPE_URL,
  AUTHORIZATION_TYPE_URL,
  OUTBOUND_POLICY_TYPE_URL,
  PROXY_CONFIG_TYPE_URL,
  SERVICE_DNS_TYPE_URL,
  TRAFFIC_POLICY_TYPE_URL,
  WORKLOAD_DNS_TYPE_URL,
} from './type-urls.js';
