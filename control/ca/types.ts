import type { Metadata } from '@grpc/grpc-js';

/** Who calls, as its token proves. */
export interface Caller {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** The node that the token is bound to. */
  readonly nodeName: string | null;
  /** metadata.uid of that node; null where the token does not say (those of our own never do). */
  readonly nodeUid: string | null;
  /** The pod that the token is bound to. */
  readonly pod: { readonly name: string; readonly uid: string } | null;
  /** Unix milliseconds. */
  readonly expiresAtMs: number;
}

/** Why a caller or its request was refused: label of the metric, and in the log. */
export type RefusalReason =
  | 'token-missing'
  | 'token-invalid' // not signed by us, malformed, or claims that do not fit each other
  | 'token-expired'
  | 'token-audience'
  | 'not-a-node-agent' // the service account is not among the trusted ones
  | 'no-node' // the token is bound to no node
  | 'token-unbound' // the token is bound to no pod
  | 'review-failed' // the API server could not be asked whose token that is
  | 'review-busy' // too many wait for its answer
  | 'pod-gone' // the pod that the token is bound to is not (any more) on that node under that account
  | 'node-gone' // the node that the token is bound to is not there any more, or is another one of that name
  | 'not-impersonating'
  | 'identity-invalid'
  | 'trust-domain'
  | 'no-such-pod-on-node'
  | 'csr-invalid'
  | 'signer-failed'; // the Kubernetes signer did not sign, or not in time

export interface Refusal {
  readonly refusal: RefusalReason;
  readonly message: string;
}

export type AuthenticationOutcome = { readonly caller: Caller } | Refusal;

/** Finds out who calls from the metadata of a gRPC call. */
export interface Authenticator {
  authenticate(metadata: Metadata): Promise<AuthenticationOutcome>;
}

/** What the CA must know of the cluster. */
export interface PodDirectory {
  /** Undefined: there is no such node. */
  node(name: string): { readonly uid: string } | undefined;
  /** Pods on the node that have not ended. */
  podsOnNode(nodeName: string): Iterable<{
    readonly namespace: string;
    readonly name: string;
    readonly uid: string;
    readonly serviceAccount: string;
    readonly phase: string;
  }>;
}

export interface CaEvents {
  issued(): void;
  refused(reason: RefusalReason): void;
  failed(): void;
}
