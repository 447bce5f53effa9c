import { tryParseSpiffeId } from '../identity/index.js';
import { type AddressWords, type RangeTables, wordsOf } from './address-table.js';
import type { ConnectionFacts } from './types.js';

/** A peer's identity as policies see it. */
export interface PeerNames {
  /** Its identity without `spiffe://`, in its own trust domain and, if that is one of the mesh's, in each of the others. */
  readonly principals: readonly string[];
  readonly namespace: string | null;
  readonly serviceAccount: string | null;
  /** `<ns>/<sa>`; null: none. */
  readonly account: string | null;
}

/** A peer without an identity. */
export const nobody: PeerNames = {
  principals: [],
  namespace: null,
  serviceAccount: null,
  account: null,
};

/** `trustDomains`: those that are one and the same for policies. What is not of the mesh's shape is no identity. */
export function peerNamesOf(identity: string, trustDomains: readonly string[]): PeerNames {
  const id = tryParseSpiffeId(identity);
  if (id === null) return nobody;
  const { trustDomain, namespace, serviceAccount } = id;
  const same = trustDomains.includes(trustDomain) ? trustDomains : [trustDomain];
  const principals = same.map((domain) => `${domain}/ns/${namespace}/sa/${serviceAccount}`);
  return { principals, namespace, serviceAccount, account: accountText(namespace, serviceAccount) };
}

export function accountText(namespace: string, serviceAccount: string): string {
  return `${namespace}/${serviceAccount}`;
}

/** One connection while it is judged. Addresses are read when the first condition asks for them. */
export class Subject {
  readonly peer: PeerNames;
  readonly port: number;
  /** For conditions on addresses. */
  readonly networks: RangeTables;
  readonly #facts: ConnectionFacts;
  #source: AddressWords | null | undefined = undefined;
  #destination: AddressWords | null | undefined = undefined;

  constructor(facts: ConnectionFacts, peer: PeerNames, networks: RangeTables) {
    this.#facts = facts;
    this.peer = peer;
    this.networks = networks;
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
