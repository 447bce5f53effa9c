/** Where a field is inside an object: `['spec', 'ports', 0, 'port']`. */
export type FieldPath = readonly (string | number)[];

/** One thing wrong with one object. */
export interface FieldProblem {
  readonly path: FieldPath;
  /** Completes "field …: ". */
  readonly reason: string;
}

/** What a person should know of an object: of one that is wrong, of one that is sound as it stands, or of one that nobody here reads. */
export interface Remark extends FieldProblem {
  /** What follows from it: 'it is not in force'. */
  readonly effect: string;
  /** False: a notice only, nothing that was surely meant is missing. */
  readonly isProblem: boolean;
}

/**
 * What a decoder makes of one manifest. `key` names the object across files and versions: `Pod/shop/cart-1`. `ignored`: a sound object that
 * is none of this program's business.
 */
export type Decoded<T> =
  | {
      readonly outcome: 'object';
      readonly key: string;
      readonly value: T;
      /** Absent: none. */
      readonly remarks?: readonly Remark[];
    }
  | {
      readonly outcome: 'invalid';
      readonly key: string;
      readonly problems: readonly FieldProblem[];
      /** In force as long as there is no good version: for kinds whose absence would allow more (policies). */
      readonly inPlace?: T;
      /** What that means, in words. */
      readonly standIn?: string;
      readonly remarks?: readonly Remark[];
    }
  | { readonly outcome: 'ignored'; readonly key: string }
  /** Without a remark: nobody needs to know. */
  | { readonly outcome: 'unknown-kind'; readonly remark?: Remark };

/** A manifest as parsed, its form checked no further than this. */
export interface RawObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly [field: string]: unknown };
  readonly [field: string]: unknown;
}

/** Gives typed objects for manifests; pure. */
export type Decoder<T> = (object: RawObject) => Decoded<T>;

/** What changed in a source, in one step. */
export interface SourceBatch<T> {
  readonly upserted: ReadonlyMap<string, T>;
  readonly removed: readonly string[];
}

/** A problem or notice with where a person finds it. `line` counts from 1; empty `kind`, `name` or `field` where it is not known. */
export interface ManifestProblem {
  readonly file: string;
  readonly line: number;
  readonly kind: string;
  readonly name: string;
  readonly field: string;
  readonly reason: string;
  /** What is in force instead. */
  readonly effect: string;
}

/** Connections of a captured pod that go as they would without the mesh: in clear text, without policy. */
export interface Exclusions {
  /** Destination ports. */
  readonly outboundPorts: readonly number[];
  /** Destinations, `address/prefix bits`, canonical. */
  readonly outboundRanges: readonly string[];
  /** The pod's own ports; 0: all. HBONE (15008) comes to the agent in any case. */
  readonly inboundPorts: readonly number[];
}

/** Labels, annotations, selectors. */
export type Labels = Readonly<Record<string, string>>;
