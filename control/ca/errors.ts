import { MeshError } from '../../mesh/common/errors.js';

/** CA_STATE: a file of the state folder cannot be used; data.file names it. */
export class CaError extends MeshError<'CA_STATE'> {}
