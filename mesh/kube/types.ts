import type { Remark } from '../manifests/types.js';

/** Objects that are watched. */
export interface WatchedKind {
  readonly kind: string;
  /** `v1`, `networking.istio.io/v1beta1`: the first one that is served is watched. */
  readonly apiVersions: readonly string[];
  /** Only in this namespace; absent: all. */
  readonly namespace?: string;
  /** `spec.nodeName=n1`. */
  readonly fieldSelector?: string;
  /** Listed and watched as this user where the API server lets us (impersonation), else as ourselves. */
  readonly asUser?: string;
}

/** How to reach an API server, as of now. PEM texts; null where there is none. */
export interface Credentials {
  /** Base URL, without a slash at the end. */
  readonly server: string;
  readonly ca: string | null;
  readonly certificate: string | null;
  readonly key: string | null;
  readonly token: string | null;
  /** Name to expect in the server's certificate; null: the URL's host. */
  readonly serverName: string | null;
}

/** Where credentials come from. */
export interface ClusterAccess {
  /** For logs. */
  readonly origin: string;
  /** Read anew at each call: tokens expire, CAs are rotated. @throws KubeError KUBE_ACCESS */
  read(): Credentials;
}

/** Where a kind is served. */
export interface Place {
  readonly apiVersion: string;
  /** `/apis/networking.istio.io/v1/serviceentries`. */
  readonly path: string;
}

/** `absent`: the API server does not serve this kind (a CRD that is not installed); looked for again now and then. */
export type WatchState = 'starting' | 'absent' | 'watching' | 'interrupted';

/** How the watch of one kind is doing. */
export interface KindStatus {
  readonly kind: string;
  readonly state: WatchState;
  /** Of the version that is watched; empty while it is not known. */
  readonly apiVersion: string;
  readonly objects: number;
  /** Since the API server was last heard of it, milliseconds; a healthy watch hears a bookmark a minute. */
  readonly ageMs: number;
  /** Complete listings so far: 1 in a life without trouble. */
  readonly listings: number;
  /** Why it is not watching; else empty. */
  readonly trouble: string;
}

/** One object as it is kept: nothing of its JSON but this. */
export interface Entry<T> {
  readonly uid: string;
  readonly resourceVersion: string;
  /** In force; undefined: nothing is. */
  readonly value: T | undefined;
  /** False: `value` is none that was ever sound (it holds the place of one). */
  readonly isGood: boolean;
  readonly remarks: readonly Remark[];
}
