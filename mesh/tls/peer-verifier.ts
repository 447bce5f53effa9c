import { messageOf } from '../common/errors.js';
import {
  formatSpiffeId,
  readCertificate,
  readCertificates,
  revocationKey,
  tryParseSpiffeId,
} from '../identity/index.js';
import { PeerIdentityError } from './errors.js';

export interface PeerVerifierOptions {
  /** The mesh's own. */
  readonly trustDomain: string;
  /** Others that stand for it, as while one is being replaced: their clients are let in, and a server of the same account in one of them is the one expected. The bundle must hold their roots. */
  readonly trustDomainAliases?: readonly string[];
}

/**
 * Who a peer is, from its leaf certificate (DER), after OpenSSL has verified chain, validity and usage (hbone-and-wds.md 1.2). Both methods throw PeerIdentityError.
 * Nothing is cached: a leaf is read in 3 us, a lookup by its bytes takes 0.7.
 */
export class PeerVerifier {
  private readonly trustDomains: ReadonlySet<string>;
  private revoked: ReadonlySet<string> | null = null;

  constructor(options: PeerVerifierOptions) {
    this.trustDomains = new Set([options.trustDomain, ...(options.trustDomainAliases ?? [])]);
  }

  /** `revocationKey`s of mesh/identity; null: nothing is known to be revoked. */
  setRevoked(revoked: ReadonlySet<string> | null): void {
    this.revoked = revoked;
  }

  /** Which certificate of the chain (verified, DER one behind the other; asked for only if need be) is revoked, in words; null: none. A chain that cannot be read counts as revoked. */
  revocationOf(peer: { peerChain(): Buffer | null }): string | null {
    if (this.revoked === null || this.revoked.size === 0) return null;
    try {
      const chain = readCertificates(peer.peerChain() ?? Buffer.alloc(1));
      const found = chain.findIndex(({ issuer, serial }) => this.revoked!.has(revocationKey(issuer, serial)));
      return found < 0
        ? null
        : `certificate ${found} of the peer's chain (serial ${chain[found]!.serial}) is revoked`;
    } catch (error) {
      return `whether the peer's certificate is revoked cannot be told: ${messageOf(error)}`;
    }
  }

  /** The same account in the other trust domains that count as ours; none for a foreign one. */
  aliasesOf(identity: string): string[] {
    const id = tryParseSpiffeId(identity);
    if (id === null || !this.trustDomains.has(id.trustDomain)) return [];
    const others = [...this.trustDomains].filter((trustDomain) => trustDomain !== id.trustDomain);
    return others.map((trustDomain) => formatSpiffeId({ ...id, trustDomain }));
  }

  /** The one of `expected` that the server is, or an alias of one, compared as text with each of its URI names; DNS names never count. */
  serverIdentity(leaf: Buffer | null, expected: readonly string[]): string {
    const uris = urisOf(leaf);
    for (const uri of uris) if (expected.includes(uri)) return uri;
    for (const uri of uris) if (this.aliasesOf(uri).some((alias) => expected.includes(alias))) return uri;
    throw new PeerIdentityError(
      'UNEXPECTED_PEER',
      `the server is ${listed(uris)}, expected ${listed(expected)}`,
    );
  }

  /** The client's identity: exactly one SPIFFE id of the mesh's shape among its URI names, of our trust domain or an alias. */
  clientIdentity(leaf: Buffer | null): string {
    const uris = urisOf(leaf);
    const usable = uris.filter((uri) => tryParseSpiffeId(uri) !== null);
    const [identity] = usable;
    if (identity === undefined || usable.length > 1) {
      throw new PeerIdentityError(
        'BAD_PEER_CERTIFICATE',
        `the client's certificate holds ${usable.length} workload identities, not one: ${listed(uris)}`,
      );
    }
    if (!this.trustDomains.has(tryParseSpiffeId(identity)!.trustDomain)) {
      throw new PeerIdentityError(
        'FOREIGN_TRUST_DOMAIN',
        `the client ${identity} is of none of our trust domains (${[...this.trustDomains].join(', ')})`,
      );
    }
    return identity;
  }
}

function urisOf(leaf: Buffer | null): readonly string[] {
  if (leaf === null) throw new PeerIdentityError('NO_PEER_CERTIFICATE', 'the peer showed no certificate');
  try {
    return readCertificate(leaf).uris;
  } catch (error) {
    throw new PeerIdentityError('BAD_PEER_CERTIFICATE', messageOf(error), {}, error);
  }
}

/** For messages: a peer may fill its certificate with anything. */
function listed(texts: readonly string[]): string {
  if (texts.length === 0) return 'nobody';
  const shown = texts.slice(0, 4).map((text) => JSON.stringify(text.slice(0, 256)));
  return shown.join(', ') + (texts.length > 4 ? ` and ${texts.length - 4} more` : '');
}
