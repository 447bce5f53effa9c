/**
 * An agent that is only agent/capture and a plain relay: `node capture-agent.js '<CaptureAgentConfig as JSON>'`. Writes one JSON object a line
 * to standard output (`event`: ready, failed, captured, released, outbound, inbound, status, stopped); reads `status` and `stop` from standard
 * input. A relayed connection is told with its pod, caller and destination.
 */
import { createServer, type Server, Socket } from 'node:net';
import { createInterface } from 'node:readline';
import {
  ApplicationDialer,
  Capture,
  type CapturedPod,
  type CaptureListener,
  type CaptureOptions,
  FilesPodSource,
  OriginalDestinationMap,
} from '../../agent/capture/index.js';
import { isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import { createLog } from '../../mesh/log/index.js';
import { Bpf, encodeU32 } from '../../native/bpf/index.js';
import { Net } from '../../native/net/index.js';

export interface CaptureAgentConfig {
  readonly capture: Omit<CaptureOptions, 'workers'>;
  readonly folder: string;
  readonly nodeName: string;
  /** Relayed connections are not told: for thousands of them. */
  readonly quiet?: boolean;
}

const config = JSON.parse(process.argv[2]!) as CaptureAgentConfig;
const log = createLog({ level: 'info', component: 'agent' }, { destination: { write: (line) => process.stderr.write(line) } });
const bpf = new Bpf();
const net = new Net();
const servers = new Map<string, Server[]>();

function tell(event: string, fields: Record<string, unknown> = {}): void {
  process.stdout.write(`${JSON.stringify({ event, atMs: Date.now(), ...fields })}\n`);
}

function remoteOf(socket: Socket): SocketAddress {
  return { address: socket.remoteAddress!.replace('::ffff:', ''), port: socket.remotePort! };
}

function localOf(socket: Socket): SocketAddress {
  return { address: socket.localAddress!.replace('::ffff:', ''), port: socket.localPort! };
}

/** Joins both ways; an end is an end, a reset is a reset. */
function join(one: Socket, two: Socket, onOver: () => void = () => {}): void {
  for (const [from, to] of [
    [one, two],
    [two, one],
  ] as const) {
    from.on('error', () => to.resetAndDestroy());
    from.pipe(to);
  }
  two.on('close', onOver);
}

function socketIn(netnsFd: number, to: SocketAddress): { socket: Socket; fd: number } {
  const fd = net.borrowNetns(netnsFd).tcpSocket(isIpv6(to.address) ? 'ipv6' : 'ipv4');
  return { socket: new Socket({ fd, allowHalfOpen: true }), fd };
}

class Relay implements CaptureListener {
  #originals: OriginalDestinationMap | null = null;
  #dialer: ApplicationDialer | null = null;

  async onCaptured(pod: CapturedPod): Promise<void> {
    const { handles } = capture;
    this.#originals ??= new OriginalDestinationMap({ handles });
    this.#dialer ??= new ApplicationDialer({ workerIndex: 0, handles });
    servers.set(pod.pod.uid, [
      await listen(pod.outboundFds[0]!, (app) => this.#outbound(pod, app)),
      await listen(pod.inboundFds[0]!, (caller) => this.#inbound(pod, caller)),
      await listen(pod.hboneFds[0]!, (caller) => caller.end('hbone')),
    ]);
    tell('captured', { uid: pod.pod.uid, pod: pod.pod.name });
  }

  async onReleased(uid: string, reason: 'unenrolled' | 'deleted'): Promise<void> {
    for (const server of servers.get(uid) ?? []) server.close();
    servers.delete(uid);
    tell('released', { uid, reason });
  }

  #outbound(pod: CapturedPod, app: Socket): void {
    const caller = remoteOf(app);
    const destination = this.#originals!.take(pod.netnsCookie, caller);
    if (!config.quiet) tell('outbound', { pod: pod.pod.name, caller, destination });
    if (destination === null) {
      app.resetAndDestroy();
      return;
    }
    const { socket } = socketIn(pod.netnsFd, destination);
    socket.connect({ host: destination.address, port: destination.port });
    join(app, socket);
  }

  #inbound(pod: CapturedPod, caller: Socket): void {
    const [from, to] = [remoteOf(caller), localOf(caller)];
    const { options, shown, release } = this.#dialer!.dial(pod, to, from, from.port);
    if (!config.quiet) tell('inbound', { pod: pod.pod.name, caller: from, destination: to, shown });
    const { socket, fd } = socketIn(pod.netnsFd, to);
    const { mapFd, value } = options.socketStorage!;
    bpf.borrowMap(mapFd).update(encodeU32(fd), value);
    socket.connect({ host: to.address, port: to.port, localAddress: options.fromAddress! });
    join(caller, socket, release);
  }
}

async function listen(fd: number, onConnection: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, onConnection);
  server.on('error', (error) => tell('listen-error', { error: String(error) }));
  await new Promise<void>((resolve) => server.listen({ fd }, resolve));
  return server;
}

const podSource = new FilesPodSource({ folder: config.folder, nodeName: config.nodeName }, { log });
const capture = new Capture({ workers: 1, ...config.capture }, { podSource, listener: new Relay(), log });
capture.start().then(
  () => tell('ready', { status: capture.status() }),
  (error: { code?: string; message: string }) => {
    tell('failed', { code: error.code, message: error.message });
    process.exit(1);
  },
);

createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'status') tell('status', { status: capture.status() });
  if (line === 'stop') {
    void capture.stop().then(() => {
      tell('stopped');
      process.exit(0);
    });
  }
});
