export { XDS_DEFAULTS, XdsServer, type XdsServerDeps, type XdsServerOptions } from './server.js';
export type {
  ClientStatus,
  DeltaCall,
  DeltaRequest,
  ResourceContent,
  XdsBacklog,
  XdsEvents,
} from './types.js';
