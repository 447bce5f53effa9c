/** Whether this program is the one of its kind that writes. */
export interface Leadership {
  /** Ask just before each write: it turns false by itself as soon as another could lead. */
  readonly isLeader: boolean;
  /** Identity of who leads, as last seen; '' while nobody does. */
  readonly holder: string;
  /** Calls `onLead` at once where we lead already. Gives how to stop listening. */
  subscribe(listener: LeadershipListener): () => void;
}

/** Alternate, beginning with `onLead`. They must not throw. */
export interface LeadershipListener {
  /** From now on others do not write. */
  onLead(): void;
  /** Stop writing: another leads, or may. */
  onFollow(): void;
}

/** An object of the cluster, as events and writes name it. */
export interface ObjectReference {
  readonly apiVersion: string;
  readonly kind: string;
  /** '' for cluster-wide kinds. */
  readonly namespace: string;
  readonly name: string;
  /** '' where it is not known. */
  readonly uid: string;
}

/** What a person should know of an object (events.k8s.io/v1). */
export interface ClusterEvent {
  readonly regarding: ObjectReference;
  readonly type: 'Normal' | 'Warning';
  /** One word in CamelCase, for programs. */
  readonly reason: string;
  /** What was being done, in CamelCase. */
  readonly action: string;
  /** For people; cut to 1024 bytes. */
  readonly note: string;
}
