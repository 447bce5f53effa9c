/**
 * An agent that is only agent/capture and a plain relay: `node capture-agent.js '<CaptureAgentConfig as JSON>'`. Writes one JSON object a line
 * to standard output (`event`: ready, failed, captured, released, outbound, inbound, status, stopped); reads `status` and `stop` from standard
 * input. A relayed connection is told with its pod, caller and destination.
 */
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
import {
  AGAIN,
  type Connection,
  type ConnectionHandler,
  EOF,
  EpollReactor,
  type Listener,
} from '../../mesh/io/index.js';
import { createLog } from '../../mesh/log/index.js';

export interface CaptureAgentConfig {
  readonly capture: Omit<CaptureOptions, 'workers'>;
  readonly folder: string;
  readonly nodeName: string;
  /** Relayed connections are not told: for thousands of them. */
  readonly quiet?: boolean;
}

const config = JSON.parse(process.argv[2]!) as CaptureAgentConfig;
const log = createLog(
  { level: 'info', component: 'agent' },
  { destination: { write: (line) => process.stderr.write(line) } },
);
const reactor = new EpollReactor({}, { log });
const listeners = new Map<string, Listener[]>();

function tell(event: string, fields: Record<string, unknown> = {}): void {
  process.stdout.write(`${JSON.stringify({ event, atMs: Date.now(), ...fields })}\n`);
}

/** One direction of a relayed connection, and the owner of its source. An end is an end, a failure is a reset. */
class Half implements ConnectionHandler {
  other!: { connection: Connection; half: Half };
  ended = false;
  readonly #onOver: () => void;

  constructor(onOver: () => void) {
    this.#onOver = onOver;
  }

  onConnected(connection: Connection): void {
    this.other.connection.resumeReading();
    connection.resumeReading();
  }

  onReadable(connection: Connection): void {
    const { receiveBuffer } = reactor;
    const to = this.other.connection;
    const bytes = connection.read(receiveBuffer, 0, receiveBuffer.length);
    if (bytes > 0) {
      if (to.write(receiveBuffer, 0, bytes) > 0) connection.pauseReading();
    } else if (bytes === EOF) {
      this.ended = true;
      connection.pauseReading();
      to.shutdownWrite();
      if (this.other.half.ended) this.#over((one) => one.close());
    } else if (bytes !== AGAIN) {
      connection.pauseReading(); // onClosed follows
    }
  }

  onDrained(): void {
    if (!this.other.half.ended) this.other.connection.resumeReading();
  }

  onClosed(): void {
    this.#over((one) => one.reset());
  }

  #over(end: (one: Connection) => void): void {
    end(this.other.connection);
    end(this.other.half.other.connection);
    this.#onOver();
  }
}

function relay(
  accepted: Connection,
  dialled: (handler: ConnectionHandler) => Connection,
  onOver = () => {},
): ConnectionHandler {
  accepted.pauseReading();
  const [from, to] = [new Half(onOver), new Half(onOver)];
  const dial = dialled(to);
  from.other = { connection: dial, half: to };
  to.other = { connection: accepted, half: from };
  return from;
}

class Relay implements CaptureListener {
  #originals: OriginalDestinationMap | null = null;
  #dialer: ApplicationDialer | null = null;

  async onCaptured(pod: CapturedPod): Promise<void> {
    const { handles } = capture;
    this.#originals ??= new OriginalDestinationMap({ handles });
    this.#dialer ??= new ApplicationDialer({ workerIndex: 0, handles });
    listeners.set(pod.pod.uid, [
      reactor.listen({ fd: pod.outboundFds[0]! }, { onAccepted: (app) => this.#outbound(pod, app) }),
      reactor.listen({ fd: pod.inboundFds[0]! }, { onAccepted: (caller) => this.#inbound(pod, caller) }),
      reactor.listen({ fd: pod.hboneFds[0]! }, { onAccepted: () => null }),
    ]);
    tell('captured', { uid: pod.pod.uid, pod: pod.pod.name });
  }

  async onReleased(uid: string, reason: 'unenrolled' | 'deleted'): Promise<void> {
    for (const listener of listeners.get(uid) ?? []) listener.stop();
    listeners.delete(uid);
    tell('released', { uid, reason });
  }

  #outbound({ pod, netnsCookie, netnsFd }: CapturedPod, app: Connection): ConnectionHandler | null {
    const to = this.#originals!.take(netnsCookie, app.remote, app.local.port);
    if (!config.quiet) tell('outbound', { pod: pod.name, caller: app.remote, destination: to });
    if (to === null) return null;
    return relay(app, (handler) => reactor.connect({ to, netnsFd, connectTimeoutMs: 10_000 }, handler));
  }

  #inbound(pod: CapturedPod, caller: Connection): ConnectionHandler {
    const { options, shown, release } = this.#dialer!.dial(
      pod,
      caller.local,
      caller.remote,
      caller.remote.port,
    );
    if (!config.quiet)
      tell('inbound', { pod: pod.pod.name, caller: caller.remote, destination: caller.local, shown });
    return relay(caller, (handler) => reactor.connect(options, handler), release);
  }
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

// The reactor's turns between Node's own: a real agent gives it a thread.
setInterval(() => reactor.turn(0), 1);
