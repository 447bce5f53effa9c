export type { Endpoint } from './endpoint-set.js';
export { type HostLookup, HostLookups, type HostLookupsOptions } from './host-lookups.js';
export { type HostnameAnswer, Hostnames } from './hostnames.js';
export { type RouteRequest, Router, type RouterOptions } from './router.js';
export {
  type DirectRoute,
  type GatewayRoute,
  type HboneRoute,
  type HostnameSource,
  illegalPorts,
  type Route,
} from './types.js';
export { WorkloadTexts } from './workload-texts.js';
