export { decodeObject } from './decode.js';
export { isEnrolled } from './enrolment.js';
export { MODEL_DEFAULTS, Model, type ModelChange, type ModelDeps, type ModelOptions } from './model.js';
export type {
  ContainerPort,
  Kind,
  Labels,
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
export { keyOf } from './types.js';
