export { decodeObject, OBJECT_KINDS } from './decode.js';
export { visibilityOfService } from './decode-service-entry.js';
export { MODEL_DEFAULTS, Model, type ModelDeps, type ModelOptions } from './model.js';
export { type Gap, gapOf } from './policies/gaps.js';
export type {
  AttributeMatch,
  AuthorizationPolicy,
  AuthorizationRule,
  BeyondL4,
  L4Attribute,
  MtlsMode,
  PeerAuthentication,
  PolicyTarget,
} from './policies/types.js';
export { NETWORK_LABEL, Relations, type Selectable, type Selecting } from './relations.js';
export { compareAge, type Limitation, type Report } from './report.js';
export type {
  AccessLogRules,
  DestinationRule,
  EndpointFields,
  EndpointSlice,
  LocalityFields,
  RuleTrafficPolicy,
  Scope,
  ServiceEntry,
  ServiceEntryPort,
  Sidecar,
  SliceEndpoint,
  Telemetry,
  Visibility,
  WorkloadEntry,
} from './service-types.js';
export { keyOfObject, type ModelChange } from './touched.js';
export type {
  ContainerPort,
  MeshObject,
  Namespace,
  Node,
  ObjectKey,
  Pod,
  Protocol,
  Service,
  ServiceAccount,
  ServicePort,
} from './types.js';
