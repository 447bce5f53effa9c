import { MeshError } from '../common/errors.js';

/** Why a peer whose chain is good is still not let through. */
export type PeerIdentityErrorCode =
  | 'NO_PEER_CERTIFICATE'
  | 'BAD_PEER_CERTIFICATE' // not readable, or without exactly one SPIFFE id where one is needed
  | 'UNEXPECTED_PEER' // a server that is not who was asked for
  | 'FOREIGN_TRUST_DOMAIN';

export class PeerIdentityError extends MeshError<PeerIdentityErrorCode> {}
