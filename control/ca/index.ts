export { CaError } from './errors.js';
export {
  ISSUER_DEFAULTS,
  type IssueOutcome,
  type IssueRequest,
  Issuer,
  type IssuerDeps,
  type IssuerOptions,
} from './issuer.js';
export { loadOrCreateRoot, type RootCa } from './root.js';
export { ServerCertificate, type ServerCertificateOptions } from './server-certificate.js';
export { CertificateService, type CertificateServiceDeps } from './service.js';
export { writeFileAtomically } from './state-file.js';
export { TOKEN_AUDIENCE, TokenAuthority, type TokenSubject } from './tokens.js';
export type {
  AuthenticationOutcome,
  Authenticator,
  CaEvents,
  Caller,
  PodDirectory,
  Refusal,
  RefusalReason,
} from './types.js';
