import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { envoy } from '../../mesh/proto/index.js';

export type DeltaRequest = envoy.service.discovery.v3.DeltaDiscoveryRequest.$Properties;
/** Responses go out as encoded bytes (mesh/proto `encodeDeltaResponse`). */
export type DeltaCall = ServerDuplexStream<DeltaRequest, Buffer>;

/** One resource of a type, encoded once. */
export interface StoredResource {
  readonly name: string;
  /** Hash of the content: equal content has equal versions, also after a restart of the controller. */
  readonly version: string;
  /** Name, aliases and followed names: a subscription to any of them brings this resource. */
  readonly keys: readonly string[];
  /** As mesh/proto `encodeResource` gives it. */
  readonly encoded: Buffer;
}

/** What one push holds. */
export interface Push {
  readonly resources: readonly StoredResource[];
  readonly removed: readonly string[];
}

/** A push as it is sent. */
export interface Message {
  /** No two messages of a type have the same. */
  readonly nonce: string;
  readonly bytes: Buffer;
}

/** A resource that goes into a `ResourceSet`. */
export interface ResourceContent {
  readonly name: string;
  readonly aliases: readonly string[];
  /** Names of other resources whose subscribers get this one, too. */
  readonly follows: readonly string[];
  /** The message in its `Any`. */
  readonly value: Uint8Array;
}

/** What happens on the streams, for metrics. */
export interface XdsEvents {
  connected(): void;
  disconnected(): void;
  pushed(typeUrl: string, resources: number, bytes: number): void;
  /** `roundTripMs` since the push, `convergenceMs` since the first change that it carries (or the subscription). */
  acknowledged(typeUrl: string, roundTripMs: number, convergenceMs: number): void;
  rejected(typeUrl: string): void;
  refused(reason: string): void;
}

/** One connected client, for people (`culvertctl status`). */
export interface ClientStatus {
  /** By its token; null: of no node. */
  readonly node: string | null;
  /** As it names itself; null before its first request. */
  readonly id: string | null;
  readonly connectedMs: number;
  readonly types: readonly {
    readonly typeUrl: string;
    /** `sent`: a push is not answered yet; `refused`: the last one was, and why. */
    readonly state: 'synced' | 'sent' | 'refused';
    readonly nacks: number;
    readonly lastNack: string | null;
  }[];
}

/** What is to be sent. */
export interface XdsBacklog {
  /** Of responses that connections have not taken yet. */
  readonly bytes: number;
  /** Streams that wait until there is less of that. */
  readonly waiting: number;
}
