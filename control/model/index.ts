export { decodeObject } from './decode.js';
export { MODEL_DEFAULTS, Model, type ModelChange, type ModelDeps, type ModelOptions } from './model.js';
export { compareAge, type Limitation, type Report } from './report.js';
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
