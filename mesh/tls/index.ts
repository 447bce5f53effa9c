export { PeerIdentityError, type PeerIdentityErrorCode } from './errors.js';
export { PeerVerifier, type PeerVerifierOptions } from './peer-verifier.js';
export { TlsContexts, type TlsContextsDeps, type TlsContextsOptions } from './tls-contexts.js';
export type { ContextListener } from './types.js';
