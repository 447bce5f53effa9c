import { envoy } from './gen/messages.js';

/** A `Resource` encoded and framed as field 2 of a response: made once, sent to every client. */
export type EncodedResource = Buffer;

/** Field 2, length-delimited. */
const RESOURCES_TAG = 0x12;

/** Encodes one resource for use in any number of responses. `value` is the payload of its `Any`. */
export function encodeResource(resource: {
  readonly name: string;
  readonly version: string;
  readonly aliases: readonly string[];
  readonly typeUrl: string;
  readonly value: Uint8Array;
}): EncodedResource {
  const body = envoy.service.discovery.v3.Resource.encode({
    name: resource.name,
    version: resource.version,
    aliases: [...resource.aliases],
    resource: { type_url: resource.typeUrl, value: resource.value },
  }).finish();
  return Buffer.concat([Buffer.from([RESOURCES_TAG, ...varint(body.length)]), body]);
}

/** A whole `DeltaDiscoveryResponse` from resources that are already encoded. */
export function encodeDeltaResponse(response: {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly systemVersion: string;
  readonly resources: readonly EncodedResource[];
  readonly removed: readonly string[];
}): Buffer {
  const rest = envoy.service.discovery.v3.DeltaDiscoveryResponse.encode({
    typeUrl: response.typeUrl,
    nonce: response.nonce,
    systemVersionInfo: response.systemVersion,
    removedResources: [...response.removed],
  }).finish();
  return Buffer.concat([rest, ...response.resources]);
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return [...bytes, rest];
    bytes.push((rest & 0x7f) | 0x80);
  }
}
