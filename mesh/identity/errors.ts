import { MeshError } from '../common/errors.js';

/** What can be wrong with an identity or a certificate. */
export type IdentityErrorCode =
  | 'BAD_SPIFFE_ID' // not spiffe://<trust domain>/ns/<namespace>/sa/<service account>
  | 'BAD_PEM'
  | 'BAD_CERTIFICATE' // not DER of an X.509 certificate, or one that RFC 5280 forbids
  | 'BAD_CRL' // not a certificate revocation list, or one of a form that is not read
  | 'BAD_CSR' // not a PKCS#10 request, a key that is not accepted, or a signature that does not prove possession of it
  | 'UNTRUSTED_CHAIN' // no path to a root of the bundle, outside its validity, wrong usage
  | 'KEY_MISMATCH' // the certificate is not for our key
  | 'IDENTITY_MISMATCH'; // the certificate is for somebody else

export class IdentityError extends MeshError<IdentityErrorCode> {}
