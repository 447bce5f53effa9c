import type { ApiRequest } from '../../mesh/kube/index.js';

/** The part of mesh/kube's client that is used here. */
export interface Requests {
  /** @throws KubeError */
  request(request: ApiRequest): Promise<unknown>;
}

/** A line for whoever reads the Job's log. */
export type Say = (line: string) => void;

/** The parts of an object that are looked at. */
export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly resourceVersion?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
}

export interface Listed<T> {
  readonly metadata: { readonly continue?: string };
  readonly items: readonly T[];
}
