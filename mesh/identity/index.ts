export {
  CertificateManager,
  type CertificateManagerDeps,
  type CertificateManagerOptions,
} from './certificate-manager.js';
export { type Crl, isSignedBy, readCrls } from './crl.js';
export { buildCsr, type CsrInfo, readCsr } from './csr.js';
export { IdentityError, type IdentityErrorCode } from './errors.js';
export { generateKeyPair, type KeyPair, keyPairOf } from './keys.js';
export { derToPem, pemToDer } from './pem.js';
export {
  RevocationFile,
  type RevocationFileDeps,
  type RevocationFileOptions,
  revocationKey,
} from './revocation-file.js';
export { formatSpiffeId, parseSpiffeId, type SpiffeId, tryParseSpiffeId } from './spiffe.js';
export type {
  CertificateListener,
  CertificateState,
  FetchedCertificate,
  IdentityMaterial,
} from './types.js';
export { verifyChain } from './verify.js';
export { type CertificateRequest, issueCertificate, type Signer, type SubjectNames } from './x509-issue.js';
export { type CertificateInfo, readCertificate, readCertificates } from './x509-read.js';
