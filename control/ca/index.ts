export {
  type Authority,
  bundleOf,
  type CaMaterial,
  ChangeListeners,
  checkStep,
  distinctPem,
  type IssuedLeaf,
  KeyAuthority,
  type LeafRequest,
} from './authority.js';
export { CaError, type CaErrorCode } from './errors.js';
export {
  FilesAuthority,
  type FilesAuthorityDeps,
  type FilesAuthorityOptions,
} from './files-authority.js';
export {
  ISSUER_DEFAULTS,
  type IssueOutcome,
  type IssueRequest,
  Issuer,
  type IssuerDeps,
  type IssuerOptions,
} from './issuer.js';
export { certificatesIn, type MaterialPart, pathOf, readMaterial } from './material.js';
export { codeOfRefusal } from './refusals.js';
export { makeRoot } from './root.js';
export { ServerCertificate, type ServerCertificateOptions } from './server-certificate.js';
export { CertificateService, type CertificateServiceDeps } from './service.js';
export {
  beginRootRotation,
  StateAuthority,
  type StateAuthorityDeps,
  type StateAuthorityOptions,
} from './state-authority.js';
export { writeFileAtomically } from './state-file.js';
export { bearerOf, TOKEN_AUDIENCE, TokenAuthority, type TokenSubject } from './tokens.js';
export type {
  AuthenticationOutcome,
  Authenticator,
  CaEvents,
  Caller,
  PodDirectory,
  Refusal,
  RefusalReason,
} from './types.js';
