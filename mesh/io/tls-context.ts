import { NativeTlsContexts } from '../../native/index.js';
import type { TlsContextId, TlsMaterial } from './types.js';

/**
 * Makes an SSL context for both roles: TLS 1.3, AES-GCM, ALPN h2, the peer's certificate demanded and verified against the bundle (chain,
 * validity, purpose); no tickets, no SNI. Who the peer is, is its owner's to check (`peerCertificate`). Throws NativeError TLS_MATERIAL.
 */
export function createTlsContext(material: TlsMaterial): TlsContextId {
  return new NativeTlsContexts().create(
    Buffer.concat(material.certificateChain),
    material.privateKey,
    Buffer.concat(material.trustBundle),
  );
}

/** The number is void from now on; connections that were made with it keep their context. */
export function releaseTlsContext(id: TlsContextId): void {
  new NativeTlsContexts().release(id);
}
