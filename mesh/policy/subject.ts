import { tryParseSpiffeId } from '../identity/index.js';
import { type AddressWords, wordsOf } from './address-table.js';
import type { ConnectionFacts } from './types.js';

/** A peer's identity as policies see it. */
export interface PeerNames {
  /** Its identity without `spiffe://`, in its own trust domain and, if that is one of the mesh's, in each of the others. */
  readonly principals: readonly string[];
  readonly namespace: string | null;
  readonly serviceAccount: string | null;
  /** Where an index has filed rules for it; see rule-index.ts. */
  readonly indexKeys: readonly string[];
}

/** Rules that ask for no identity that an index could use. */
export const anyIdentityKey = '';

export const indexKeyOf = {
  principal: (principal: string) => `p ${principal}`,
  namespace: (namespace: string) => `n ${namespace}`,
  serviceAccount: (namespace: string, serviceAccount: string) => `s ${namespace}/${serviceAccount}`,
  /** Of any namespace. */
  accountName: (serviceAccount: string) => `a ${serviceAccount}`,
} as const;

/** A peer without an identity. */
export const nobody: PeerNames = {
  principals: [],
  namespace: null,
  serviceAccount: null,
  indexKeys: [anyIdentityKey],
};

/** `trustDomains`: those that are one and the same for policies. What is not of the mesh's shape is no identity. */
export function peerNamesOf(identity: string, trustDomains: readonly string[]): PeerNames {
  const id = tryParseSpiffeId(identity);
  if (id === null) return nobody;
  const { trustDomain, namespace, serviceAccount } = id;
  const same = trustDomains.includes(trustDomain) ? trustDomains : [trustDomain];
  const principals = same.map((domain) => `${domain}/ns/${namespace}/sa/${serviceAccount}`);
  const indexKeys = [
    anyIdentityKey,
    ...principals.map(indexKeyOf.principal),
    indexKeyOf.serviceAccount(namespace, serviceAccount),
    indexKeyOf.accountName(serviceAccount),
    indexKeyOf.namespace(namespace),
  ];
  return { principals, namespace, serviceAccount, indexKeys };
}

/** One connection while it is judged. Addresses are read when the first condition asks for them. */
export class Subject {
  readonly peer: PeerNames;
  readonly port: number;
  readonly #facts: ConnectionFacts;
  #source: AddressWords | null | undefined = undefined;
  #destination: AddressWords | null | undefined = undefined;

  constructor(facts: ConnectionFacts, peer: PeerNames) {
    this.#facts = facts;
    this.peer = peer;
    this.port = facts.destinationPort;
  }

  get source(): AddressWords | null {
    if (this.#source === undefined) this.#source = wordsOf(this.#facts.sourceAddress);
    return this.#source;
  }

  get destination(): AddressWords | null {
    if (this.#destination === undefined) this.#destination = wordsOf(this.#facts.destinationAddress);
    return this.#destination;
  }
}
