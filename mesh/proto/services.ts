import { decodeDeltaRequest } from './delta-request.js';
import { envoy, istio } from './gen/messages.js';
import type { Method } from './types.js';

/** gRPC methods on the wire. Responses of discovery stay bytes: the server encodes a resource once, whoever reads it decides how strictly. */

type DeltaDiscoveryRequest = envoy.service.discovery.v3.DeltaDiscoveryRequest.$Properties;
type CertificateRequest = istio.v1.auth.IstioCertificateRequest.$Properties;
type CertificateResponse = istio.v1.auth.IstioCertificateResponse.$Properties;

interface Codec<Message> {
  encode(message: Message): { finish(): Uint8Array };
  decode(bytes: Uint8Array): Message;
}

/** Bidirectional stream of delta xDS (hbone-and-wds.md 3.1). Responses are encoded `DeltaDiscoveryResponse`. */
export const AggregatedDiscoveryService = {
  deltaAggregatedResources: {
    path: '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources',
    requestStream: true,
    responseStream: true,
    requestSerialize: serializer(envoy.service.discovery.v3.DeltaDiscoveryRequest),
    requestDeserialize: decodeDeltaRequest,
    responseSerialize: passBytes,
    responseDeserialize: passBytes,
  } satisfies Method<DeltaDiscoveryRequest, Buffer>,
};

/** Unary certificate signing (hbone-and-wds.md 4). */
export const IstioCertificateService = {
  createCertificate: {
    path: '/istio.v1.auth.IstioCertificateService/CreateCertificate',
    requestStream: false,
    responseStream: false,
    requestSerialize: serializer(istio.v1.auth.IstioCertificateRequest),
    requestDeserialize: deserializer(istio.v1.auth.IstioCertificateRequest),
    responseSerialize: serializer(istio.v1.auth.IstioCertificateResponse),
    responseDeserialize: deserializer(istio.v1.auth.IstioCertificateResponse),
  } satisfies Method<CertificateRequest, CertificateResponse>,
};

function serializer<Message>(codec: Codec<Message>): (message: Message) => Buffer {
  return (message) => asBuffer(codec.encode(message).finish());
}

function deserializer<Message>(codec: Codec<Message>): (bytes: Buffer) => Message {
  return (bytes) => codec.decode(bytes);
}

function passBytes(bytes: Buffer): Buffer {
  return bytes;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
