import { MeshError } from '../../mesh/common/errors.js';

/** MANIFESTS_UNREADABLE: the folder is not there or cannot be listed at start. */
export class FilesError extends MeshError<'MANIFESTS_UNREADABLE'> {}
