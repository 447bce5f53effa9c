import type { Labels } from '../../../mesh/manifests/index.js';

export type MtlsMode = 'UNSET' | 'DISABLE' | 'PERMISSIVE' | 'STRICT';

/** mesh-apis.md 2.6. Without a selector: of its namespace, or of the mesh where that is the root namespace. */
export interface PeerAuthentication {
  readonly kind: 'PeerAuthentication';
  readonly namespace: string;
  readonly name: string;
  /** metadata.creationTimestamp; '' where there is none. */
  readonly createdAt: string;
  /** Null: none, or one without labels. */
  readonly selector: Labels | null;
  readonly mode: MtlsMode;
  /** By the workload's own port. */
  readonly ports: readonly { readonly port: number; readonly mode: MtlsMode }[];
  /** It could not be read: STRICT, beside whatever else holds there, wherever it may have been meant to apply. */
  readonly isUnreadable: boolean;
}

/** What L4 knows of a connection. Principals are without `spiffe://`; all identities come from the peer's certificate. */
export type L4Attribute =
  | 'principal'
  | 'namespace'
  | 'serviceAccount'
  | 'trustDomain'
  | 'sourceIp'
  | 'destinationIp'
  | 'destinationPort';

/**
 * Holds if any of `values` does (empty: any) and none of `notValues`. Principals, namespaces and trust domains: `x`, `x*`, `*x`, `*` (there is
 * one); service accounts: `namespace/name`; addresses: `address/bits`; ports: decimal.
 */
export interface AttributeMatch {
  readonly attribute: L4Attribute;
  readonly values: readonly string[];
  readonly notValues: readonly string[];
}

/** Something a rule says that is not among its clauses: L4 cannot tell, or nobody can read it. */
export interface BeyondL4 {
  /** `spec.rules[0].to[0].operation.methods`. */
  readonly field: string;
  /** 'is L7 only'. */
  readonly reason: string;
}

export interface AuthorizationRule {
  /** All must hold; each does if any of its matches does; a match if all its attributes do (none: always). */
  readonly clauses: readonly (readonly (readonly AttributeMatch[])[])[];
  readonly beyond: readonly BeyondL4[];
}

/** What a policy is bound to instead of a selector. */
export interface PolicyTarget {
  /** `Service`, `ServiceEntry`, `Gateway`, `GatewayClass`. */
  readonly kind: string;
  readonly name: string;
}

/** mesh-apis.md 2.7. With neither selector nor targets: of its namespace, or of the mesh where that is the root namespace. */
export interface AuthorizationPolicy {
  readonly kind: 'AuthorizationPolicy';
  readonly namespace: string;
  readonly name: string;
  /** Null: none, or one without labels. */
  readonly selector: Labels | null;
  readonly targets: readonly PolicyTarget[];
  readonly action: 'ALLOW' | 'DENY' | 'AUDIT' | 'CUSTOM';
  /** Annotation `istio.io/dry-run`. */
  readonly dryRun: boolean;
  /** A rule that matches makes the policy match. */
  readonly rules: readonly AuthorizationRule[];
}
