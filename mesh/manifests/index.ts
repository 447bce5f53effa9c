export { readDocuments } from './documents.js';
export {
  checkDataplaneMode,
  DATAPLANE_MODE_LABEL,
  dataplaneModeOf,
  EXCLUDED_NAMESPACES,
  isEnrolled,
  REDIRECTION_ANNOTATION,
  whyOutside,
} from './enrolment.js';
export { ManifestsError } from './errors.js';
export {
  EXCLUSION_ANNOTATIONS,
  type PodAnnotations,
  readAnnotations,
} from './exclusions.js';
export { type Fields, formatPath } from './fields.js';
export { decoderOf, groupOf, type KindDecoder, keyOf } from './kinds.js';
export { cgroupUidOf, type PodFields, readPod, remarkOnPod } from './pod.js';
export { remarksOf } from './remarks.js';
export {
  FOLDER_SOURCE_DEFAULTS,
  FolderSource,
  type FolderSourceDeps,
  type FolderSourceOptions,
} from './source.js';
export type {
  Exclusions,
  FieldProblem,
  Labels,
  ManifestProblem,
  RawObject,
  Remark,
  SourceBatch,
} from './types.js';
export { type ValidationReport, validateManifests } from './validate.js';
