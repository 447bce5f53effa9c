import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { SocketAddress } from '../../mesh/common/address.js';
import { packageRoot } from '../../native/package-root.js';
import { type Lab, type LabPod, type LabProcess, waitFor } from '../lab/index.js';
import { type Certificates, makeCertificates } from './certificates.js';

/** Port of the application in the server's pod. */
export const APP_PORT = 9000;

const LOAD = join(packageRoot(), 'test/bench/build/load');

/** What a peer is measured in: a client's pod and a server's pod on two nodes of its own, the application running. */
export interface Bed {
  readonly lab: Lab;
  readonly client: LabPod;
  readonly server: LabPod;
  /** For the peers' configuration and certificates. */
  readonly folder: string;
  readonly certificates: Certificates;
}

/** A pair of proxies at work (or none). */
export interface RunningPeer {
  /** What the client dials. */
  readonly target: SocketAddress;
  /** The proxies' own processes, without their children. */
  readonly proxies: readonly LabProcess[];
  stop(): Promise<void>;
}

export interface Peer {
  readonly name: PeerName;
  start(bed: Bed): Promise<RunningPeer>;
}

export const PEER_NAMES = ['none', 'haproxy', 'nginx', 'envoy-mtls', 'envoy-hbone', 'culvert'] as const;
export type PeerName = (typeof PEER_NAMES)[number];

/** What load.c is to do. */
export interface Load {
  readonly kind: 'rr' | 'connect' | 'up' | 'down';
  readonly connections: number;
  readonly secs: number;
}

/** One line of load.c. */
export interface LoadResult {
  readonly operations: number;
  readonly bytes: number;
  readonly secs: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

/** Makes the nodes and pods of one peer and starts the application. */
export async function makeBed(lab: Lab, name: string): Promise<Bed> {
  const [a, b] = [await lab.node(`${name}-a`), await lab.node(`${name}-b`)];
  const namespace = `bench-${name}`;
  lab.namespace(namespace, name === 'culvert' ? { labels: { 'istio.io/dataplane-mode': 'ambient' } } : {});
  const [client, server] = await Promise.all([
    a.pod('client', { namespace, serviceAccount: 'client', labels: { app: 'client' } }),
    b.pod('server', { namespace, serviceAccount: 'server', labels: { app: 'server' } }),
  ]);
  // A client that closes first uses a port for a minute; the connection rows need more than 60,000 of them.
  const sysctls = ['net.ipv4.tcp_tw_reuse=1', 'net.ipv4.ip_local_port_range=16384 65535'];
  await Promise.all([client, server].map((pod) => pod.output(['sysctl', '-qw', ...sysctls])));
  const folder = join(lab.names.state, name);
  mkdirSync(folder, { recursive: true });
  const certificates = makeCertificates(folder);
  await server.spawn([LOAD, 'serve', String(APP_PORT)]).waitForOutput(/listening/);
  return { lab, client, server, folder, certificates };
}

/** Runs load.c in the client's pod; `onBegin` is called when its connections stand and the clock starts. Throws where a connection failed. */
export async function runLoad(
  bed: Bed,
  target: SocketAddress,
  load: Load,
  onBegin: () => void = () => undefined,
): Promise<LoadResult> {
  const { kind, connections, secs } = load;
  const command = [LOAD, kind, target.address, String(target.port), String(connections), String(secs)];
  const client = bed.client.spawn(command);
  const timer = setTimeout(() => client.signal('SIGKILL'), secs * 1000 + 30_000);
  try {
    await client.waitForOutput(/^ready$/m);
    onBegin();
    client.write('\n');
    const { code, stdout, stderr } = await client.ended;
    const result = JSON.parse(/^\{.*\}$/m.exec(stdout)?.[0] ?? 'null') as LoadResult | null;
    const nothing = result === null || (result.operations === 0 && result.bytes === 0);
    if (code !== 0 || nothing) throw new Error(`${command.join(' ')}: code ${code}\n${stdout}${stderr}`);
    return result;
  } finally {
    clearTimeout(timer);
    if (client.running) client.signal('SIGKILL');
  }
}

/** Opens connections and keeps them, each having carried one request, until the process is stopped. */
export async function holdIdle(bed: Bed, target: SocketAddress, connections: number): Promise<LabProcess> {
  const command = [LOAD, 'idle', target.address, String(target.port), String(connections)];
  const holder = bed.client.spawn(command);
  await holder.waitForOutput(/^idle$/m, 60_000);
  return holder;
}

/** Resolves once a request goes through `target`. */
export async function waitUntilServing(bed: Bed, target: SocketAddress, what: string): Promise<void> {
  await waitFor(
    `${what} to carry a request`,
    async () => await runLoad(bed, target, { kind: 'rr', connections: 1, secs: 0.05 }),
    {
      intervalMs: 100,
    },
  );
}
