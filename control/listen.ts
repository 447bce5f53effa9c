import type { Socket } from 'node:net';
import { hostname, networkInterfaces } from 'node:os';
import { experimental, Server, type ServerCredentials } from '@grpc/grpc-js';
import { type SocketAddress, tryCanonicalAddress } from '../mesh/common/address.js';
import type { Log } from '../mesh/log/index.js';
import { AggregatedDiscoveryService, IstioCertificateService } from '../mesh/proto/index.js';
import { Webhook } from './admission/index.js';
import { type Authority, type CertificateService, ServerCertificate } from './ca/index.js';
import type { Cluster } from './cluster.js';
import { FRONT_DOOR_DEFAULTS, FrontDoor } from './front-door.js';
import type { AdmissionEvents } from './metrics.js';
import type { ControllerOptions } from './options.js';
import type { XdsServer } from './xds/index.js';

/** Requests are small; only initial_resource_versions grows, by about 100 bytes a resource. */
const MAX_REQUEST_BYTES = 64 << 20;
/** An agent has one xDS stream and some certificate calls, each on a connection of its own. */
const MAX_STREAMS_PER_CONNECTION = 100;
const SERVER_CERTIFICATE_LIFETIME_MS = 24 * 3_600_000;

/** The controller's own, for its names and addresses. */
export function createServerCertificate(
  options: ControllerOptions,
  authority: Authority,
  log: Log,
): Promise<ServerCertificate> {
  return ServerCertificate.make(
    { ...namesOf(options), lifetimeMs: SERVER_CERTIFICATE_LIFETIME_MS },
    { authority, log: log.child({ room: 'ca' }) },
  );
}

/** xDS and certificates. */
export function createGrpcServer(xds: XdsServer, certificates: CertificateService): Server {
  const server = new Server({
    'grpc.max_receive_message_length': MAX_REQUEST_BYTES,
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
    'grpc.max_concurrent_streams': MAX_STREAMS_PER_CONNECTION,
    interceptors: [certificates.interceptor],
  });
  server.addService(AggregatedDiscoveryService, { deltaAggregatedResources: xds.handle });
  server.addService(IstioCertificateService, { createCertificate: certificates.handle });
  return server;
}

/** Null: there is none. */
export function createWebhook(
  options: ControllerOptions,
  cluster: Cluster | null,
  deps: { readonly events: AdmissionEvents; readonly log: Log },
): Webhook | null {
  if (cluster === null || !options.webhook) return null;
  const configuration = options.webhookConfiguration || `culvert-validation-${options.namespace}`;
  return new Webhook(
    { ...options, ...namesOf(options), listen: options.webhookListen, configuration },
    {
      client: cluster.client,
      leadership: cluster.election,
      onVerdict: (verdict) => deps.events.reviewed(verdict),
      log: deps.log.child({ room: 'admission' }),
    },
  );
}

/** Where the server's clients come in; it listens at once. Resolves to the port as bound, too. */
export async function bind(
  server: Server,
  listen: SocketAddress,
  certificate: ServerCertificate,
): Promise<{ readonly door: FrontDoor; readonly port: number }> {
  const credentials: ServerCredentials = experimental.createCertificateProviderServerCredentials(
    certificate,
    null,
    false,
  );
  const injector = server.createConnectionInjector(credentials);
  const letIn = (socket: Socket) => injector.injectConnection(socket);
  const door = new FrontDoor(FRONT_DOOR_DEFAULTS, { letIn });
  return { door, port: await door.listen(listen) };
}

/** Names and addresses of the server certificate. */
function namesOf(options: ControllerOptions): { dnsNames: string[]; ipAddresses: string[] } {
  const { address } = options.listen;
  const isWildcard = address === '0.0.0.0' || address === '::';
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const names = ['localhost', hostname(), ...serviceNamesOf(options), '127.0.0.1', '::1'];
  names.push(...(isWildcard ? own.map((found) => found.address) : [address]));
  const dnsNames = new Set<string>();
  const ipAddresses = new Set<string>();
  for (const name of names) {
    const ip = tryCanonicalAddress(name);
    if (ip === null) dnsNames.add(name);
    else ipAddresses.add(ip);
  }
  return { dnsNames: [...dnsNames], ipAddresses: [...ipAddresses] };
}

/** By which agents reach us. */
function serviceNamesOf({ names, namespace, clusterDomain }: ControllerOptions): readonly string[] {
  if (names.length > 0) return names;
  const service = `culvert-controller.${namespace}`;
  return [service, `${service}.svc`, `${service}.svc.${clusterDomain}`];
}

/** Lets running calls end; what is left after `timeoutMs` is cut. */
export async function shutDown(server: Server, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs);
  });
  const graceful = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  await Promise.race([graceful, deadline]);
  clearTimeout(timer);
  server.forceShutdown();
}
