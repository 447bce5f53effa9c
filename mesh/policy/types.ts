/** What a policy can ask of an inbound connection (hbone-and-wds.md 3.6). Addresses are canonical text. */
export interface ConnectionFacts {
  /** SPIFFE identity of the peer's verified certificate; null: plain text. */
  readonly identity: string | null;
  /** The peer's; for a tunnel that of the tunnel's own connection. */
  readonly sourceAddress: string;
  /** The real target: never 15008. */
  readonly destinationAddress: string;
  readonly destinationPort: number;
}

/** Why a connection is allowed or not. */
export type VerdictReason =
  /** Allowed: no ALLOW policy applies, and no DENY matches. */
  | 'no-allow-policy'
  /** Allowed by a rule of an ALLOW policy. */
  | 'allowed'
  /** A rule of a DENY policy matches. */
  | 'denied'
  /** ALLOW policies apply, and none of their rules matches. */
  | 'not-allowed'
  /** The workload names a policy that is not here: what it would say is not known. */
  | 'policy-missing'
  /** The controller has not told its policies yet. */
  | 'policies-unknown'
  /** A policy that may apply cannot be evaluated. */
  | 'policy-defect';

/** What decided: a policy's key `ns/name` and the index of its rule (the group of sheet 3.6); null where no single one did. */
export interface Decision {
  readonly policy: string | null;
  readonly rule: number | null;
  readonly reason: VerdictReason;
}

/** Plain and immutable; shared between connections. */
export interface Verdict extends Decision {
  readonly allowed: boolean;
  /** Of an allowed connection: what would have denied it, were the dry-run policies enforced. */
  readonly dryRun: readonly Decision[];
}

/** The whole way to a verdict, in plain objects, for people. */
export interface Explanation {
  readonly connection: ConnectionFacts;
  readonly verdict: Verdict;
  /** Named by the workload, and not here. */
  readonly missing: readonly string[];
  /** All that apply, in the order in which they are named by verdicts. */
  readonly policies: readonly PolicyTrail[];
}

export interface PolicyTrail {
  readonly policy: string;
  /** Why it applies. */
  readonly scope: 'global' | 'namespace' | 'workload-selector';
  readonly action: 'allow' | 'deny';
  readonly dryRun: boolean;
  readonly defect: string | null;
  /** True: one of its rules does. */
  readonly matches: boolean;
  readonly rules: readonly RuleTrail[];
}

export interface RuleTrail {
  readonly rule: number;
  readonly matches: boolean;
  /** All must match; each does if it is empty or one of its alternatives does. */
  readonly clauses: readonly { readonly matches: boolean; readonly alternatives: readonly MatchTrail[] }[];
}

/** All of its conditions must hold; one without any never matches. */
export interface MatchTrail {
  readonly matches: boolean;
  readonly conditions: readonly ConditionTrail[];
}

export interface ConditionTrail {
  /** Field of `AuthorizationMatch`: `principals`, `notPrincipals`, … */
  readonly field: string;
  readonly wanted: readonly string[];
  readonly holds: boolean;
}
