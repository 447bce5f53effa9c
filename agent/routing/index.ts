export { type HboneRoute, illegalPorts, type Route, type RouteOptions, route } from './route.js';
export { baggageOf, identityTextOf } from './workload-texts.js';
