import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { experimental, Server, type ServerCredentials } from '@grpc/grpc-js';
import type { TextServer } from '../mesh/admin/index.js';
import { formatSocketAddress, type SocketAddress, tryCanonicalAddress } from '../mesh/common/address.js';
import type { Log } from '../mesh/log/index.js';
import { FOLDER_SOURCE_DEFAULTS, FolderSource, type ManifestProblem } from '../mesh/manifests/index.js';
import {
  ADDRESS_TYPE_URL,
  AggregatedDiscoveryService,
  AUTHORIZATION_TYPE_URL,
  IstioCertificateService,
  PROXY_CONFIG_TYPE_URL,
} from '../mesh/proto/index.js';
import { openAuthority, publishBundle } from './authority.js';
import {
  type Authority,
  CertificateService,
  chainNotAfterMs,
  Issuer,
  rootNotAfterMs,
  ServerCertificate,
  TokenAuthority,
} from './ca/index.js';
import { type FilesStatus, writeFilesStatus } from './files-status.js';
import { type ControllerMetrics, createMetrics } from './metrics.js';
import { decodeObject, type MeshObject, MODEL_DEFAULTS, Model } from './model/index.js';
import { type StatusSections, startMonitoring, startStatus } from './monitoring.js';
import type { ControllerOptions } from './options.js';
import { PUBLISHER_DEFAULTS, Publisher } from './publisher.js';
import { Reports } from './reports.js';
import { AddressTranslator } from './translate/index.js';
import { loadVipState } from './vip-state.js';
import { XDS_DEFAULTS, XdsServer } from './xds/index.js';

/** A running controller. */
export interface Controller {
  /** Ports as bound, where the options said 0. */
  readonly port: number;
  readonly monitoringPort: number;
  stop(): Promise<void>;
}

/** Requests are small; only initial_resource_versions grows, by about 100 bytes a resource. */
const MAX_REQUEST_BYTES = 64 << 20;
/** An agent has one xDS stream and some certificate calls, each on a connection of its own. */
const MAX_STREAMS_PER_CONNECTION = 100;
const SERVER_CERTIFICATE_LIFETIME_MS = 24 * 3_600_000;

/** Builds the controller and starts it: the sources first, so that nobody is served half a state. Throws if it cannot start. */
export async function startController(
  options: ControllerOptions,
  deps: { readonly log: Log },
): Promise<Controller> {
  const metrics = createMetrics();
  const authority = openAuthority(options, deps.log.child({ room: 'ca' }));
  const plane = buildPlane(options, authority, metrics, deps.log);
  const stopPublishing = publishBundle(options, { authority, xds: plane.xds, log: deps.log });
  const serverCertificate = new ServerCertificate(
    { ...namesOf(options), lifetimeMs: SERVER_CERTIFICATE_LIFETIME_MS },
    { authority, log: deps.log.child({ room: 'ca' }) },
  );
  const grpc = createGrpcServer(plane.xds, plane.certificates);
  let pending: string | null = 'starting';
  const servers: TextServer[] = [];
  const onError = (error: unknown, what: string) => deps.log.warn({ err: error }, what);
  const stop = async () => {
    pending = 'stopping';
    plane.source.stop();
    plane.model.stop();
    plane.publisher.stop();
    plane.xds.close();
    await shutDown(grpc, options.shutdownTimeout);
    serverCertificate.close();
    stopPublishing();
    authority.close();
    await Promise.all(servers.map((server) => server.close()));
  };
  try {
    await plane.source.start();
    plane.model.flush();
    const port = await bind(grpc, options.listen, serverCertificate);
    servers.push(
      await startMonitoring(options.monitoringListen, {
        registry: metrics.registry,
        pending: () => pending,
        onError,
      }),
    );
    const monitoringPort = servers[0]!.address.port;
    const sections = { pending: () => pending, ...statusOf(plane) };
    servers.push(await startStatus(options.adminListen, sections, onError));
    pending = null;
    deps.log.info({ port, monitoringPort, trustDomain: options.trustDomain }, 'controller ready');
    return { port, monitoringPort, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What the controller does, without its listeners: source → model → translate → xDS, and the CA beside it. */
interface Plane {
  readonly source: FolderSource<MeshObject>;
  readonly model: Model;
  readonly publisher: Publisher;
  readonly xds: XdsServer;
  readonly reports: Reports;
  readonly certificates: CertificateService;
}

function buildPlane(
  options: ControllerOptions,
  authority: Authority,
  metrics: ControllerMetrics,
  log: Log,
): Plane {
  const reports = new Reports({ log: log.child({ room: 'reports' }) });
  const model: Model = new Model(
    { ...MODEL_DEFAULTS, ...options },
    {
      onChange: (change) => {
        publisher.publish(change);
      },
    },
  );
  const vips = loadVipState(options.state, log);
  const addresses = new AddressTranslator(options, { model, vips: vips.pool });
  const authenticator = TokenAuthority.load(options.state);
  const issuer = createIssuer(options, authority, model);
  const xds = new XdsServer(
    { ...XDS_DEFAULTS, typeUrls: [PROXY_CONFIG_TYPE_URL, AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL] },
    {
      authenticator,
      authorize: (caller) => issuer.checkAgent(caller),
      events: metrics.xds,
      log: log.child({ room: 'xds' }),
    },
  );
  const publisher = new Publisher(
    { ...PUBLISHER_DEFAULTS, ...options },
    { model, addresses, vips, xds, reports },
  );
  const certificates = new CertificateService({
    authenticator,
    issuer,
    events: metrics.ca,
    log: log.child({ room: 'ca' }),
  });
  const source: FolderSource<MeshObject> = new FolderSource(
    { ...FOLDER_SOURCE_DEFAULTS, folder: options.manifests },
    {
      decode: decodeObject,
      onBatch: (batch) => model.apply(batch),
      onProblems: (problems) => writeFilesStatus(statusFile, statusOfFiles(problems), log),
      log: log.child({ room: 'files' }),
    },
  );
  const statusFile = options.statusFile || join(options.state, 'files-status.json');
  const statusOfFiles = (problems: readonly ManifestProblem[]): FilesStatus => ({
    folder: source.folder,
    changedAt: new Date().toISOString(),
    problems,
  });
  metrics.observe({
    resources: () => xds.sizes,
    manifestProblems: () => source.problems.length,
    reports: () => reports.all.length,
    sourceAges: () => new Map([['files', source.ageMs]]),
    expiries: () => ({
      rootMs: rootNotAfterMs(authority.current),
      chainMs: chainNotAfterMs(authority.current),
      roots: authority.current.roots.length,
    }),
  });
  return { source, model, publisher, xds, reports, certificates };
}

/** What `culvertctl status` shows. */
function statusOf({ xds, source, reports }: Plane): StatusSections {
  return {
    agents: () => xds.clients,
    resources: () => xds.sizes,
    problems: () => source.problems,
    reports: () => reports.all,
  };
}

function createIssuer(options: ControllerOptions, authority: Authority, model: Model): Issuer {
  const { trustDomain, trustDomainAliases, certificateLifetime, nodeAccounts } = options;
  return new Issuer(
    {
      trustDomain,
      trustDomainAliases,
      nodeAccounts,
      defaultLifetimeMs: certificateLifetime,
      maxLifetimeMs: certificateLifetime,
    },
    { authority, pods: model, nowMs: Date.now },
  );
}

function createGrpcServer(xds: XdsServer, certificates: CertificateService): Server {
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

function bind(server: Server, listen: SocketAddress, certificate: ServerCertificate): Promise<number> {
  const credentials: ServerCredentials = experimental.createCertificateProviderServerCredentials(
    certificate,
    null,
    false,
  );
  return new Promise((resolve, reject) => {
    server.bindAsync(formatSocketAddress(listen), credentials, (error, port) => {
      if (error === null) resolve(port);
      else reject(error);
    });
  });
}

/** Names and addresses of the server certificate. */
function namesOf(options: ControllerOptions): { dnsNames: string[]; ipAddresses: string[] } {
  const { address } = options.listen;
  const isWildcard = address === '0.0.0.0' || address === '::';
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const names = ['localhost', hostname(), ...options.names, '127.0.0.1', '::1'];
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

/** Lets running calls end; what is left after `timeoutMs` is cut. */
async function shutDown(server: Server, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs);
  });
  const graceful = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  await Promise.race([graceful, deadline]);
  clearTimeout(timer);
  server.forceShutdown();
}
