import { MeshError } from '../common/errors.js';

/** MANIFESTS_UNREADABLE: the folder is not there or cannot be listed at start. */
export class ManifestsError extends MeshError<'MANIFESTS_UNREADABLE'> {}
