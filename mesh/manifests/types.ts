/** Where a field is inside an object: `['spec', 'ports', 0, 'port']`. */
export type FieldPath = readonly (string | number)[];

/** One thing wrong with one object. */
export interface FieldProblem {
  readonly path: FieldPath;
  /** Completes "field …: ". */
  readonly reason: string;
}

/**
 * What a decoder makes of one manifest. `key` names the object across files and versions: `Pod/shop/cart-1`. `ignored`: a sound object that
 * is none of this program's business.
 */
export type Decoded<T> =
  | { readonly outcome: 'object'; readonly key: string; readonly value: T }
  | {
      readonly outcome: 'invalid';
      readonly key: string;
      readonly problems: readonly FieldProblem[];
      /** In force as long as there is no good version: for kinds whose absence would allow more (policies). */
      readonly inPlace?: T;
    }
  | { readonly outcome: 'ignored'; readonly key: string }
  | { readonly outcome: 'unknown-kind' };

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

/** A problem with where a person finds it. `line` counts from 1; empty `kind`, `name` or `field` where it is not known. */
export interface ManifestProblem {
  readonly file: string;
  readonly line: number;
  readonly kind: string;
  readonly name: string;
  readonly field: string;
  readonly reason: string;
}

/** Labels, annotations, selectors. */
export type Labels = Readonly<Record<string, string>>;
