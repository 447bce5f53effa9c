import type { ClusterEvent, ObjectReference } from '../../mesh/kube-write/index.js';
import type { ObjectKey } from '../model/index.js';

/** Of an object's status.conditions. */
export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
  /** Of metadata.generation; 0: not said. */
  readonly observedGeneration: number;
  /** RFC 3339; '' where not said. */
  readonly lastTransitionTime: string;
}

/** One entry of a ServiceEntry's status.addresses. */
export interface StatusAddress {
  readonly host: string;
  readonly value: string;
}

/** What the API server has of an object, as far as writing it needs to know. */
export interface ObjectFacts {
  readonly object: ObjectReference;
  readonly resourceVersion: string;
  readonly generation: number;
  readonly conditions: readonly Condition[];
  readonly addresses: readonly StatusAddress[];
  /** Of a Node; else null. */
  readonly node: NodeFacts | null;
}

/** What of a Node tells whether its pods could leak. */
export interface NodeFacts {
  /** status.nodeInfo.bootID: another after each boot. */
  readonly bootId: string;
  /** The boot in which an agent was ready here; '': none. */
  readonly agentBootId: string;
  readonly isTainted: boolean;
}

/** Something that a person should know of an object, as long as it is so. */
export interface Finding extends ClusterEvent {
  /** Told when it has been so for this long, milliseconds. */
  readonly afterMs: number;
}

/** What has been found, for `culvertctl` and metrics. */
export interface FindingSummary {
  readonly object: ObjectKey;
  readonly reason: string;
  readonly note: string;
}

/** For metrics, counted since the start. */
export interface WritebackCounts {
  readonly isLeader: boolean;
  readonly written: number;
  readonly failed: number;
  readonly waiting: number;
  readonly eventsSent: number;
  readonly eventsDropped: number;
  /** By reason, now. */
  readonly findings: ReadonlyMap<string, number>;
}
