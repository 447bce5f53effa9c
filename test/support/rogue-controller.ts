// A controller that means ill or is broken, for tests: `node rogue-controller.js STATE_DIR ADDRESS PORT`. Its certificate is good (signed by the root in
// STATE_DIR); what it says over gRPC is not. Each xDS stream of a client gets the next of `acts`, and prints `stream ACT ADDRESS`; ACKs and NACKs of agents are
// printed as `ack TYPE` and `nack REASON`. After the last act streams are left in silence.
import { createSecureServer, type ServerHttp2Stream } from 'node:http2';
import { ServerCertificate, StateAuthority } from '../../control/ca/index.js';
import { createLog } from '../../mesh/log/index.js';
import {
  ADDRESS_TYPE_URL,
  AUTHORIZATION_TYPE_URL,
  encodeDeltaResponse,
  encodeResource,
  envoy,
} from '../../mesh/proto/index.js';

const [stateDir = '', address = '', port = ''] = process.argv.slice(2);
const { DeltaDiscoveryRequest } = envoy.service.discovery.v3;
/** Before harm is done: a stream that lived so long is followed by the next at once, without a back-off. */
const livesMs = 1_100;

type Act = (stream: ServerHttp2Stream) => void;

const acts: Readonly<Record<string, Act>> = {
  'no-grpc': (stream) => {
    stream.respond({ ':status': 200, 'content-type': 'text/html' });
    stream.end('<html>welcome</html>');
  },
  'garbage-bytes': (stream) => {
    stream.end(Buffer.alloc(5_000, 0x5a));
  },
  'garbage-message': (stream) => {
    stream.write(message(Buffer.alloc(5_000, 0xff)));
  },
  'gigantic-message': (stream) => {
    const head = Buffer.alloc(5);
    head.writeUInt32BE(0xffff_fff0, 1);
    stream.write(Buffer.concat([head, Buffer.alloc(1 << 20)]));
  },
  'unknown-type': (stream) => {
    stream.write(message(push('type.googleapis.com/no.such.Thing', '1', [])));
  },
  // Names that the agent holds: what it has of them must stay.
  'unreadable-resources': (stream) => {
    const pods = ['Kubernetes//Pod/shop/server', 'Kubernetes//Pod/shop/client'];
    const policies = ['istio-system/istio_converted_static_strict'];
    stream.write(message(push(AUTHORIZATION_TYPE_URL, '1', policies)));
    stream.write(message(push(ADDRESS_TYPE_URL, '2', pods)));
    setTimeout(() => stream.close(), livesMs);
  },
  'foreign-nonces': (stream) => {
    for (const nonce of ['', 'same', 'same']) stream.write(message(push(AUTHORIZATION_TYPE_URL, nonce, [])));
    setTimeout(() => stream.close(), livesMs);
  },
  'half-a-snapshot': (stream) => {
    const names = Array.from({ length: 5_000 }, (_, i) => `Kubernetes//Pod/shop/pod-${i}`);
    const whole = message(push(ADDRESS_TYPE_URL, '1', names));
    stream.write(whole.subarray(0, whole.length / 2));
  },
};
/** By client address: those that it has not had yet. */
const left = new Map<string, [string, Act][]>();

function push(typeUrl: string, nonce: string, names: readonly string[]): Buffer {
  const resources = names.map((name) =>
    encodeResource({ name, version: 'rogue', aliases: [], typeUrl, value: Buffer.alloc(40, 0xff) }),
  );
  return encodeDeltaResponse({ typeUrl, nonce, systemVersion: 'rogue', resources, removed: [] });
}

/** Length-prefixed, as gRPC has it. */
function message(body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

function listen(stream: ServerHttp2Stream): void {
  let bytes = Buffer.alloc(0);
  stream.on('error', () => {});
  stream.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt32BE(1)) {
      const end = 5 + bytes.readUInt32BE(1);
      const { responseNonce, typeUrl, errorDetail } = DeltaDiscoveryRequest.decode(bytes.subarray(5, end));
      bytes = bytes.subarray(end);
      if (errorDetail != null) say(`nack ${JSON.stringify(errorDetail.message)}`);
      else if (responseNonce !== '') say(`ack ${typeUrl}`);
    }
  });
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function serve(key: Buffer, cert: Buffer): void {
  const server = createSecureServer({ key, cert });
  server.on('sessionError', () => {});
  server.on('stream', (stream, headers) => {
    const isXds = headers[':path']?.includes('DeltaAggregatedResources') === true;
    if (isXds) listen(stream);
    else stream.on('error', () => {});
    const client = stream.session?.socket.remoteAddress ?? '';
    const rest = left.get(client) ?? Object.entries(acts);
    left.set(client, rest);
    const [name, act] = (isXds ? rest.shift() : undefined) ?? ['silence', () => {}];
    say(`${isXds ? 'stream' : 'call'} ${name} ${client}`);
    if (name !== 'no-grpc') stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
    setTimeout(act, name === 'no-grpc' ? 0 : livesMs, stream);
  });
  server.listen(Number(port), address, () => say('ready'));
}

const log = createLog({ level: 'silent', component: 'rogue' });
const authority = new StateAuthority(
  { stateDir, trustDomain: 'cluster.local', overlapMs: 1_000, intervalMs: 60_000 },
  { log, nowMs: Date.now },
);
const names = { dnsNames: [], ipAddresses: [address], lifetimeMs: 3_600_000 };
const certificate = await ServerCertificate.make(names, { authority, log });
certificate.addIdentityCertificateListener((update) => {
  if (update !== null) serve(update.privateKey, update.certificate);
});
