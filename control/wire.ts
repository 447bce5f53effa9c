import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../mesh/common/errors.js';
import { BACKOFF_DEFAULTS, Backoff } from '../mesh/kube/index.js';
import type { Log } from '../mesh/log/index.js';
import type { Webhook } from './admission/index.js';
import { openAuthority, publishBundle } from './authority.js';
import { type Authority, CaError, type ServerCertificate } from './ca/index.js';
import { type Cluster, openCluster } from './cluster.js';
import { ROOT_CONFIG_MAPS_DEFAULTS, RootConfigMaps } from './cluster-ca/index.js';
import { bind, createGrpcServer, createServerCertificate, createWebhook, shutDown } from './listen.js';
import { type ControllerMetrics, createMetrics } from './metrics.js';
import { startMonitoring, startStatus } from './monitoring.js';
import type { ControllerOptions } from './options.js';
import { buildPlane, metricSourcesOf, type Plane, statusOf, stopPlane } from './plane.js';

/** A running controller. */
export interface Controller {
  /** Ports as bound, where the options said 0. */
  readonly port: number;
  readonly monitoringPort: number;
  stop(): Promise<void>;
}

/** Builds the controller and starts it: the sources first, so that nobody is served half a state. Throws if it cannot start. */
export async function startController(
  options: ControllerOptions,
  deps: { readonly log: Log },
): Promise<Controller> {
  const start = new Start(options, deps.log);
  try {
    const ports = await start.run();
    deps.log.info({ ...ports, trustDomain: options.trustDomain }, 'controller ready');
    return { ...ports, stop: () => start.stop() };
  } catch (error) {
    await start.stop();
    throw error;
  }
}

/** The steps of a start; what was begun is ended in reverse. */
class Start {
  readonly #options: ControllerOptions;
  readonly #log: Log;
  readonly #metrics: ControllerMetrics = createMetrics();
  readonly #stopping = new AbortController();
  readonly #ends: (() => void | Promise<void>)[] = [];
  /** What readiness waits for; null: nothing. */
  #awaited: () => string | null = () => 'starting';

  constructor(options: ControllerOptions, log: Log) {
    this.#options = options;
    this.#log = log;
  }

  async run(): Promise<{ port: number; monitoringPort: number }> {
    const options = this.#options;
    const onError = (error: unknown, what: string) => this.#log.warn({ err: error }, what);
    const pending = () => this.#awaited();
    const { registry } = this.#metrics;
    // Before all else, as the rest may take as long as the API server does.
    const monitoring = await startMonitoring(options.monitoringListen, { registry, pending, onError });
    this.#ends.push(() => monitoring.close());
    const cluster = openCluster(options, this.#log);
    if (cluster !== null) this.#ends.push(() => cluster.client.close());
    const authority = await this.#openAuthority(cluster);
    const certificate = await this.#serverCertificate(authority);
    const plane = await this.#plane(authority, cluster);
    const grpc = createGrpcServer(plane.xds, plane.certificates);
    const { door, port } = await bind(grpc, options.listen, certificate);
    this.#ends.push(async () => {
      door.close();
      plane.xds.close(); // clients are told to go elsewhere, or to come back
      await shutDown(grpc, options.shutdownTimeout);
    });
    this.#lead(cluster, authority, plane);
    const status = await startStatus(options.adminListen, { pending, ...statusOf(plane) }, onError);
    this.#ends.push(() => status.close());
    this.#awaited = () => null;
    return { port, monitoringPort: monitoring.address.port };
  }

  async stop(): Promise<void> {
    this.#awaited = () => 'stopping';
    this.#stopping.abort();
    for (let end = this.#ends.pop(); end !== undefined; end = this.#ends.pop()) await end();
  }

  async #openAuthority(cluster: Cluster | null): Promise<Authority> {
    const authority = await openAuthority(this.#options, {
      cluster,
      log: this.#log.child({ room: 'ca' }),
      onWaiting: (reason) => this.#await(reason),
      signal: this.#stopping.signal,
    });
    this.#ends.push(() => authority.close());
    return authority;
  }

  /** Where somebody else signs, that may take a while. */
  async #serverCertificate(authority: Authority): Promise<ServerCertificate> {
    const backoff = new Backoff(BACKOFF_DEFAULTS, { random: Math.random });
    for (;;) {
      try {
        const certificate = await createServerCertificate(this.#options, authority, this.#log);
        this.#ends.push(() => certificate.close());
        return certificate;
      } catch (error) {
        if (!(error instanceof CaError)) throw error;
        this.#await(`server certificate: ${messageOf(error)}`);
        await sleep(backoff.next(), undefined, { signal: this.#stopping.signal });
      }
    }
  }

  /** Resolves when the source has been seen whole. */
  async #plane(authority: Authority, cluster: Cluster | null): Promise<Plane> {
    const plane = buildPlane(this.#options, {
      authority,
      cluster,
      metrics: this.#metrics,
      log: this.#log,
    });
    this.#ends.push(() => stopPlane(plane));
    const isReady = () => this.#awaited() === null;
    this.#metrics.observe(metricSourcesOf(plane, { authority, isReady }));
    const log = this.#log;
    this.#ends.push(publishBundle(this.#options, { authority, xds: plane.xds, log }));
    const webhook = this.#webhook(cluster);
    this.#awaited = () =>
      ['starting', ...plane.source.pending, webhook?.pending ?? ''].filter((part) => part !== '').join('; ');
    await Promise.all([plane.source.start(), webhook?.start()]);
    plane.model.flush();
    plane.idlePolicies.start();
    return plane;
  }

  #webhook(cluster: Cluster | null): Webhook | null {
    const webhook = createWebhook(this.#options, cluster, {
      events: this.#metrics.admission,
      log: this.#log,
    });
    if (webhook !== null) this.#ends.push(() => webhook.stop());
    return webhook;
  }

  /** Who has not seen everything must not write. */
  #lead(cluster: Cluster | null, authority: Authority, plane: Plane): void {
    if (cluster === null) return;
    const { client, election } = cluster;
    const log = this.#log.child({ room: 'roots' });
    const roots = new RootConfigMaps(ROOT_CONFIG_MAPS_DEFAULTS, {
      client,
      authority,
      leadership: election,
      log,
    });
    this.#ends.push(() => roots.stop());
    roots.start();
    plane.writeback?.start();
    this.#ends.push(() => election.stop());
    election.start();
  }

  #await(reason: string): void {
    const before = this.#awaited();
    this.#awaited = () => `starting; ${reason}`;
    if (before !== this.#awaited()) this.#log.warn({ reason }, 'waiting');
  }
}
