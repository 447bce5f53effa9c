export { FilesError } from './errors.js';
export { formatPath } from './file.js';
export {
  FOLDER_SOURCE_DEFAULTS,
  FolderSource,
  type FolderSourceDeps,
  type FolderSourceOptions,
} from './source.js';
export type {
  Decoded,
  Decoder,
  FieldPath,
  FieldProblem,
  ManifestProblem,
  RawObject,
  Source,
  SourceBatch,
} from './types.js';
