import { messageOf } from '../../mesh/common/errors.js';
import {
  derToPem,
  formatSpiffeId,
  type IdentityError,
  readCertificate,
  readCsr,
  tryParseSpiffeId,
} from '../../mesh/identity/index.js';
import { type Authority, backdateMs, bundleOf } from './authority.js';
import type { CaError } from './errors.js';
import type { Caller, PodDirectory, Refusal } from './types.js';

export interface IssuerOptions {
  readonly trustDomain: string;
  /** Former trust domains: identities of them are still signed, as agents learn of the change one after another. */
  readonly trustDomainAliases: readonly string[];
  /** Given where the request names no lifetime. */
  readonly defaultLifetimeMs: number;
  /** Longer wishes are cut to this. */
  readonly maxLifetimeMs: number;
  /** Service accounts of node agents, `<namespace>/<name>`: only they may ask for others' identities. */
  readonly nodeAccounts: readonly string[];
}

const DAY_MS = 24 * 3_600_000;
export const ISSUER_DEFAULTS = {
  defaultLifetimeMs: DAY_MS,
  maxLifetimeMs: DAY_MS,
  nodeAccounts: ['culvert-system/culvert-agent'],
  trustDomainAliases: [],
} as const;

export interface IssuerDeps {
  readonly authority: Authority;
  readonly pods: PodDirectory;
  readonly nowMs: () => number;
}

/** A wish for a certificate, as it came. */
export interface IssueRequest {
  /** PEM. Only its key counts; whatever else it asks for is ignored. */
  readonly csr: string;
  /** 0 or less: the default. */
  readonly lifetimeMs: number;
  /** SPIFFE id wanted; '' where the request names none. */
  readonly identity: string;
}

export type IssueOutcome =
  | {
      /** PEM, leaf first, last the roots (hbone-and-wds.md 4). */
      readonly chain: readonly string[];
      readonly identity: string;
      readonly notAfterMs: number;
    }
  | Refusal;

/** Decides who gets which certificate, and signs it. A node agent gets the identities of the pods on its node, any other pod its own, and nobody gets anything else. */
export class Issuer {
  readonly #options: IssuerOptions;
  readonly #deps: IssuerDeps;
  readonly #nodeAccounts: ReadonlySet<string>;
  readonly #trustDomains: ReadonlySet<string>;

  constructor(options: IssuerOptions, deps: IssuerDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#nodeAccounts = new Set(options.nodeAccounts);
    this.#trustDomains = new Set([options.trustDomain, ...options.trustDomainAliases]);
  }

  /** Whether the caller is an agent of a node: null, or why not. */
  checkAgent(caller: Caller): Refusal | null {
    const account = `${caller.namespace}/${caller.serviceAccount}`;
    if (!this.#nodeAccounts.has(account))
      return { refusal: 'not-a-node-agent', message: `service account ${account} is not a node agent's` };
    if (caller.nodeName === null) return { refusal: 'no-node', message: 'the token is bound to no node' };
    return this.#checkLife(caller, caller.nodeName);
  }

  /** Pod and node of the token are there, by what we see ourselves. */
  #checkLife(caller: Caller, nodeName: string): Refusal | null {
    if (caller.pod !== null && !this.#isLive(caller, nodeName))
      return { refusal: 'pod-gone', message: `pod ${caller.pod.name} is not on node ${nodeName}` };
    if (caller.nodeUid !== null && this.#deps.pods.node(nodeName)?.uid !== caller.nodeUid)
      return { refusal: 'node-gone', message: `node ${nodeName} is gone, or is another one of that name` };
    return null;
  }

  async issue(caller: Caller, request: IssueRequest): Promise<IssueOutcome> {
    const granted = this.#grant(caller, request.identity);
    if (typeof granted !== 'string') return granted;
    try {
      return await this.#sign({ ...request, identity: granted });
    } catch (error) {
      const { code } = error as IdentityError | CaError;
      if (code === 'CA_SIGNER') return { refusal: 'signer-failed', message: messageOf(error) };
      if (code === 'BAD_CSR' || code === 'BAD_PEM')
        return { refusal: 'csr-invalid', message: messageOf(error) };
      throw error;
    }
  }

  /** The identity that the caller may have: an agent one of its node, any other pod its own. */
  #grant(caller: Caller, identity: string): string | Refusal {
    const fault = this.checkAgent(caller);
    if (fault?.refusal === 'not-a-node-agent' && caller.pod !== null && caller.nodeName !== null) {
      const own = this.#ownIdentity(caller, identity);
      if (own !== null) return this.#checkLife(caller, caller.nodeName) ?? own;
    }
    return fault ?? this.#checkIdentity(caller.nodeName!, identity) ?? identity;
  }

  /** Null: somebody else's is asked for. */
  #ownIdentity({ namespace, serviceAccount }: Caller, identity: string): string | null {
    if (identity === '')
      return formatSpiffeId({ trustDomain: this.#options.trustDomain, namespace, serviceAccount });
    const wanted = tryParseSpiffeId(identity);
    const isOwn = wanted?.namespace === namespace && wanted.serviceAccount === serviceAccount;
    return isOwn && this.#trustDomains.has(wanted.trustDomain) ? identity : null;
  }

  #checkIdentity(nodeName: string, identity: string): Refusal | null {
    if (identity === '')
      return { refusal: 'not-impersonating', message: 'metadata ImpersonatedIdentity is required' };
    const wanted = tryParseSpiffeId(identity);
    if (wanted === null)
      return { refusal: 'identity-invalid', message: 'ImpersonatedIdentity is not a SPIFFE id' };
    if (!this.#trustDomains.has(wanted.trustDomain))
      return { refusal: 'trust-domain', message: `the trust domain here is ${this.#options.trustDomain}` };
    for (const pod of this.#deps.pods.podsOnNode(nodeName)) {
      const isSame = pod.namespace === wanted.namespace && pod.serviceAccount === wanted.serviceAccount;
      if (isSame && isAlive(pod)) return null;
    }
    return { refusal: 'no-such-pod-on-node', message: `no pod of ${identity} on node ${nodeName}` };
  }

  #isLive({ namespace, serviceAccount, pod }: Caller, nodeName: string): boolean {
    for (const found of this.#deps.pods.podsOnNode(nodeName)) {
      const isSame = found.uid === pod?.uid && found.name === pod.name && found.namespace === namespace;
      if (isSame && found.serviceAccount === serviceAccount && isAlive(found)) return true;
    }
    return false;
  }

  async #sign({ csr, lifetimeMs, identity }: IssueRequest): Promise<IssueOutcome> {
    const { authority, nowMs } = this.#deps;
    const { publicKey } = readCsr(csr);
    const { defaultLifetimeMs, maxLifetimeMs } = this.#options;
    const lifetime = Math.min(lifetimeMs > 0 ? lifetimeMs : defaultLifetimeMs, maxLifetimeMs);
    const notAfterMs = nowMs() + lifetime;
    const notBeforeMs = nowMs() - backdateMs(lifetime);
    const leaf = await authority.sign({ csr, publicKey, uris: [identity], notBeforeMs, notAfterMs });
    const chain = [derToPem(leaf.certificate, 'CERTIFICATE'), ...leaf.intermediates, bundleOf(leaf)];
    return { chain, identity, notAfterMs: readCertificate(leaf.certificate).notAfterMs };
  }
}

/** Ended pods keep their object, but nothing of them runs. */
function isAlive(pod: { readonly phase: string }): boolean {
  return pod.phase !== 'Failed' && pod.phase !== 'Succeeded';
}
