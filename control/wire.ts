import type { TextServer } from '../mesh/admin/index.js';
import type { Log } from '../mesh/log/index.js';
import { openAuthority, publishBundle } from './authority.js';
import { openCluster } from './cluster.js';
import { bind, createGrpcServer, createServerCertificate, shutDown } from './listen.js';
import { createMetrics } from './metrics.js';
import { startMonitoring, startStatus } from './monitoring.js';
import type { ControllerOptions } from './options.js';
import { buildPlane, metricSourcesOf, statusOf, stopPlane } from './plane.js';

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
  const metrics = createMetrics();
  const authority = openAuthority(options, deps.log.child({ room: 'ca' }));
  const cluster = openCluster(options, deps.log);
  const plane = buildPlane(options, { authority, cluster, metrics, log: deps.log });
  const stopPublishing = publishBundle(options, { authority, xds: plane.xds, log: deps.log });
  const serverCertificate = createServerCertificate(options, authority, deps.log);
  const grpc = createGrpcServer(plane.xds, plane.certificates);
  const servers: TextServer[] = [];
  let awaited: string | null = 'starting';
  metrics.observe(metricSourcesOf(plane, { authority, isReady: () => awaited === null }));
  const pending = () => (awaited === 'starting' ? [awaited, ...plane.source.pending].join('; ') : awaited);
  const stop = async () => {
    awaited = 'stopping';
    stopPlane(plane);
    await cluster?.election.stop();
    await shutDown(grpc, options.shutdownTimeout);
    serverCertificate.close();
    stopPublishing();
    authority.close();
    cluster?.client.close();
    await Promise.all(servers.map((server) => server.close()));
  };
  try {
    const onError = (error: unknown, what: string) => deps.log.warn({ err: error }, what);
    const { registry } = metrics;
    // Before the source is whole, as that may take as long as the API server does.
    const monitoring = await startMonitoring(options.monitoringListen, { registry, pending, onError });
    servers.push(monitoring);
    await plane.source.start();
    plane.model.flush();
    // Who has not seen everything must not write.
    plane.writeback?.start();
    cluster?.election.start();
    const port = await bind(grpc, options.listen, serverCertificate);
    servers.push(await startStatus(options.adminListen, { pending, ...statusOf(plane) }, onError));
    awaited = null;
    const ports = { port, monitoringPort: monitoring.address.port };
    deps.log.info({ ...ports, trustDomain: options.trustDomain }, 'controller ready');
    return { ...ports, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
