import { NativeTlsContexts } from '../../native/index.js';
import type { TlsContextId, TlsMaterial } from './types.js';

/** SSL contexts for the main thread to make. One per program: binding the C functions anew for each certificate would leave 2 KB behind every time. */
export class EngineTlsContexts {
  readonly #native = new NativeTlsContexts();

  /**
   * Makes an SSL context for both roles: TLS 1.3, AES-GCM, ALPN h2, the peer's certificate demanded and verified against the bundle (chain,
   * validity, purpose); no tickets, no SNI. Who the peer is, is its owner's to check (`peerCertificate`). Throws NativeError TLS_MATERIAL.
   */
  create(material: TlsMaterial): TlsContextId {
    return this.#native.create(
      Buffer.concat(material.certificateChain),
      material.privateKey,
      Buffer.concat(material.trustBundle),
    );
  }

  /** The number is void from now on; connections that were made with it keep their context. */
  release(id: TlsContextId): void {
    this.#native.release(id);
  }
}
