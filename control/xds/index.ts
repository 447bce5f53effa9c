export { XDS_DEFAULTS, XdsServer, type XdsServerDeps, type XdsServerOptions } from './server.js';
export type { DeltaCall, DeltaRequest, ResourceContent, XdsEvents } from './types.js';
