import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.js';
import {
  type AccessLogLine,
  Lab,
  type LabNode,
  type LabPod,
  type LabProcess,
  type Mesh,
  type MeshAgent,
  type MeshOptions,
  type PacketCapture,
  startMesh,
  waitFor,
} from '../lab/index.js';
import { pattern } from '../support/pattern.js';
import type { TcpClientOptions, TcpOutcome } from '../support/tcp-client.js';

const program = (name: string) => ['node', join(packageRoot(), 'dist/test/support', `${name}.js`)];
export const appPort = 9000;

/** Two nodes with agents, a controller, a client pod on one and a server pod on the other, both in the mesh. */
export interface MeshBed extends Disposable {
  readonly lab: Lab;
  readonly nodes: readonly [LabNode, LabNode];
  readonly mesh: Mesh;
  readonly client: LabPod;
  readonly server: LabPod;
  readonly app: LabProcess;
}

export const ambient = { labels: { 'istio.io/dataplane-mode': 'ambient' } } as const;
/** Of a pod in an ambient namespace: not in the mesh. */
export const notInMesh = { 'istio.io/dataplane-mode': 'none' } as const;
export const spiffe = (serviceAccount: string): string =>
  `spiffe://cluster.local/ns/shop/sa/${serviceAccount}`;

export interface MeshBedOptions extends Partial<MeshOptions> {
  /** Names of more nodes with agents. */
  readonly furtherNodes?: readonly string[];
}

export async function makeMeshBed(options: MeshBedOptions = {}): Promise<MeshBed> {
  const lab = await Lab.create();
  try {
    lab.namespace('shop', ambient);
    const nodes = [await lab.node('a'), await lab.node('b')] as const;
    const further: LabNode[] = [];
    for (const name of options.furtherNodes ?? []) further.push(await lab.node(name));
    const client = await nodes[0].pod('client', { namespace: 'shop', serviceAccount: 'client' });
    const server = await nodes[1].pod('server', {
      namespace: 'shop',
      serviceAccount: 'server',
      labels: { app: 'server' },
    });
    const app = await startApp(server);
    const mesh = await startMesh(lab, { nodes: [...nodes, ...further], ...options });
    await mesh.waitUntilCaptured([client, server]);
    return { lab, nodes, mesh, client, server, app, [Symbol.dispose]: () => lab.close() };
  } catch (thrown) {
    lab.close();
    throw thrown;
  }
}

export async function startApp(pod: LabPod, port = appPort, host = '::'): Promise<LabProcess> {
  const app = pod.spawn([...program('tcp-app'), String(port), host]);
  await app.waitForOutput(/listening/);
  return app;
}

/** A connection that goes on while the test does something; `outcome` resolves when it is over. */
export interface OpenConnection {
  readonly process: LabProcess;
  readonly outcome: Promise<TcpOutcome>;
}

export function open(pod: LabPod, options: TcpClientOptions): OpenConnection {
  return openConnection(pod.spawn([...program('tcp-client'), JSON.stringify(options)]));
}

function openConnection(process: LabProcess): OpenConnection {
  const outcome = process.ended.then(({ stdout, stderr }) => {
    const line = stdout.split('\n').find((text) => text.startsWith('{'));
    if (line === undefined) throw new Error(`the client said nothing: ${stdout} ${stderr}`);
    return JSON.parse(line) as TcpOutcome;
  });
  // A test may stop the process instead of waiting for its outcome.
  outcome.catch(() => {});
  return { process, outcome };
}

/** A connection on which the application sends everything back. */
export class EchoConnection {
  readonly #open: OpenConnection;
  #said = 0;

  private constructor(open: OpenConnection) {
    this.#open = open;
  }

  static async open(pod: LabPod, options: Omit<TcpClientOptions, 'line'>): Promise<EchoConnection> {
    const echo = new EchoConnection(open(pod, { timeoutMs: 120_000, ...options, line: 'echo' }));
    await echo.say('hello');
    return echo;
  }

  get outcome(): Promise<TcpOutcome> {
    return this.#open.outcome;
  }

  /** Resolves when the word has come back. */
  async say(word: string): Promise<void> {
    const marked = `${word}-${++this.#said}`;
    this.#open.process.write(`say ${marked}\n`);
    await this.#open.process.waitForOutput(new RegExp(`heard ${marked}\\n`));
  }

  /** Ends it well; throws where it did not. */
  async close(): Promise<void> {
    this.#open.process.write('end\n');
    const { ended, error } = await this.outcome;
    if (ended !== 'fin') throw new Error(`the connection ended by ${ended} ${error}`);
  }
}

export interface ProberOptions {
  readonly host: string;
  readonly port: number;
  readonly connections: number;
  readonly intervalMs: number;
}

/** Since the start, but for `waiting` and `unharmed`. */
export interface ProberReport {
  readonly answers: number;
  /** Connections that ended by an error, by its code. */
  readonly errors: Readonly<Record<string, number>>;
  /** Connections that the peer ended cleanly: echo never does. */
  readonly ends: number;
  /** Longest time from a connect or a line to its answer, or to the error that came instead. */
  readonly longestWaitMs: number;
  /** Lines under way now. */
  readonly waiting: number;
  /** Connections that have lived since the last report. */
  readonly unharmed: number;
}

/** Clients that go on by themselves; see prober.c. */
export function startProber(pod: LabPod, options: ProberOptions) {
  const { host, port, connections, intervalMs } = options;
  const numbers = [port, connections, intervalMs].map(String);
  const prober = pod.spawn([join(packageRoot(), 'test/support/build/prober'), host, ...numbers]);
  let reports = 0;
  return {
    process: prober,
    /** What has happened so far. */
    report: async (): Promise<ProberReport> => {
      const line = new RegExp(`^(?:.*\\n){${reports++}}(.*)\\n`);
      prober.write('\n');
      return JSON.parse((await prober.waitForOutput(line))[1]!) as ProberReport;
    },
  };
}

/** Lines of the agent's access log that match, once there are any. */
export async function accessLines(
  agent: MeshAgent,
  what: string,
  matches: (line: AccessLogLine) => boolean,
): Promise<AccessLogLine[]> {
  return await waitFor(`access log of ${what}`, () => {
    const lines = agent.accessLog().filter(matches);
    return lines.length > 0 ? lines : null;
  });
}

/** Packets from or to the pod that are not HBONE's. */
export async function inClear(wire: PacketCapture, pod: LabPod): Promise<string[]> {
  const hosts = pod.ips.map((ip) => `host ${ip}`).join(' or ');
  return await wire.packets(`tcp and (${hosts}) and not port 15008`);
}

export const sockets = join(packageRoot(), 'test/support/build/sockets');

/** A transfer without end through an application that sends (`send N`) or echoes; see sockets.c for why it is not `open`. */
export function transfer(
  pod: LabPod,
  to: { readonly host: string; readonly port: number },
  line: string,
  direction: 'down' | 'up' | 'late' = 'down',
): OpenConnection {
  return openConnection(pod.spawn([sockets, 'transfer', to.host, String(to.port), line, direction]));
}

export function talk(pod: LabPod, options: TcpClientOptions): Promise<TcpOutcome> {
  return open(pod, options).outcome;
}

/** What `count` answers, or `send` sends, for this many pattern bytes. */
export function patternHash(bytes: number): string {
  const hash = createHash('sha256');
  for (let at = 0; at < bytes; at += 65_536) hash.update(pattern(at, Math.min(65_536, bytes - at)));
  return hash.digest('hex');
}
