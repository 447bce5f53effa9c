import { MeshError } from '../common/errors.js';

export type XdsErrorCode =
  | 'CONTROLLER_CREDENTIALS' // the root certificate or token file cannot be read
  | 'XDS_PROTOCOL' // the controller sent what cannot be a discovery response
  | 'CA_UNREACHABLE' // no answer to CreateCertificate in time, or no connection
  | 'CA_REFUSED' // the controller will not sign for this identity
  | 'CA_BAD_RESPONSE'; // it answered with something that is no certificate chain

export class XdsError extends MeshError<XdsErrorCode> {}
