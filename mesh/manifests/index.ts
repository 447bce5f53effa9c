export {
  checkDataplaneMode,
  DATAPLANE_MODE_LABEL,
  dataplaneModeOf,
  EXCLUDED_NAMESPACES,
  isEnrolled,
  REDIRECTION_ANNOTATION,
} from './enrolment.js';
export { ManifestsError } from './errors.js';
export { type Fields, formatPath } from './fields.js';
export { decoderOf, type KindDecoder, keyOf } from './kinds.js';
export { type PodFields, readPod } from './pod.js';
export {
  FOLDER_SOURCE_DEFAULTS,
  FolderSource,
  type FolderSourceDeps,
  type FolderSourceOptions,
} from './source.js';
export type { Labels, ManifestProblem, RawObject, SourceBatch } from './types.js';
export { type ValidationReport, validateManifests } from './validate.js';
