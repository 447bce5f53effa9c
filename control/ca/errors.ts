import { MeshError } from '../../mesh/common/errors.js';

export type CaErrorCode =
  | 'CA_STATE' // the CA's key, certificate or roots cannot be used; data.file names the file or Secret
  | 'CA_SIGNER'; // who signs for us did not, or not what was asked for

export class CaError extends MeshError<CaErrorCode> {}
